import Glibc
import SystemPackage

/// A `/proc` file system. Its root is a parameter, so the same code reads fixtures and the real one.
///
/// All reads go through one buffer that grows with the largest file. The socket table of a busy host has megabytes.
/// Large reads are the most consistent that the kernel offers: tcp_seq_next walks the hash between two reads.
package final class ProcFS {
    let root: FileDescriptor
    /// Whether its PIDs are valid for this process's own system calls. Those of a fixture are not, nor those of a
    /// `/proc` that was mounted in another PID namespace.
    package private(set) var isOwn = false
    private var buffer = [UInt8](repeating: 0, count: 64 * 1024)

    /// - Throws: `Errno` if the folder cannot be opened.
    package init(root path: FilePath = "/proc") throws {
        root = try FileDescriptor.open(path, .readOnly, options: [.directory, .closeOnExec])
        isOwn = (try? link("self"))?.decimal(Int32.self) == getpid()
    }

    deinit {
        try? root.close()
    }

    /// Passes the whole content of a file to `body`. The bytes are in the shared buffer: they are valid only within
    /// `body`, and `body` must not read another file.
    ///
    /// - Parameter limit: the largest size, for files whose length the target chooses.
    /// - Throws: `Errno`; `fileTooLarge` beyond the limit.
    func read<Result>(
        _ path: String, limit: Int = .max, _ body: (UnsafeBufferPointer<UInt8>) throws -> Result
    ) throws -> Result {
        let file = try open(path)
        defer { close(file) }
        return try read(file, limit: limit, body)
    }

    /// A descriptor of a file. The caller closes it.
    @inline(never)
    func open(_ path: String) throws(Errno) -> Int32 {
        let file = openat(root.rawValue, path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        return file
    }

    /// The same for an open file.
    func read<Result>(
        _ file: Int32, limit: Int = .max, _ body: (UnsafeBufferPointer<UInt8>) throws -> Result
    ) throws -> Result {
        let count = try fill(from: file, limit: limit)
        return try buffer.withUnsafeBufferPointer { try body(UnsafeBufferPointer(rebasing: $0[..<count])) }
    }

    private func fill(from file: Int32, limit: Int) throws -> Int {
        var count = 0
        while true {
            if count == buffer.count {
                buffer.append(contentsOf: repeatElement(0, count: buffer.count))
            }
            let got = buffer.withUnsafeMutableBytes { bytes in
                Glibc.read(file, bytes.baseAddress! + count, bytes.count - count)
            }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { throw Errno(rawValue: errno) }
            if got == 0 { return count }
            count += got
            if count > limit { throw Errno.fileTooLarge }
        }
    }

    /// - Parameter process: `PID`, `self` or `PID/task/TID`.
    /// - Throws: `Errno`; `ioError` if the text does not have the form that proc_pid_status(5) describes.
    func status(_ process: String) throws -> ProcessStatus {
        guard let status = try read("\(process)/status", { ProcessStatus($0) }) else { throw Errno.ioError }
        return status
    }

    /// The first bytes of a file that may be large. A count of 0 only checks whether the file may be opened.
    func prefix(of path: String, count: Int) throws -> [UInt8] {
        let file = openat(root.rawValue, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        defer { close(file) }
        return try [UInt8](unsafeUninitializedCapacity: count) { bytes, filled in
            let got = count == 0 ? 0 : Glibc.read(file, bytes.baseAddress, count)
            guard got >= 0 else { throw Errno(rawValue: errno) }
            filled = got
        }
    }

    /// The target of a symbolic link, as bytes. The kernel's links have at most PATH_MAX bytes.
    func link(_ path: String) throws -> [UInt8] {
        try withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { target in
            let count = readlinkat(root.rawValue, path, target.baseAddress!, target.count)
            guard count >= 0 else { throw Errno(rawValue: errno) }
            return target.prefix(count).map(UInt8.init(bitPattern:))
        }
    }

    /// The entries of a folder whose names are numbers (processes, threads), ascending.
    func numbers(in path: String) throws -> [Int32] {
        var numbers: [Int32] = []
        try eachNumber(in: path) { _, number, _ in numbers.append(number) }
        return numbers.sorted()
    }

    /// What the links of a descriptor folder tell; nil if the folder is empty.
    ///
    /// - Throws: `Errno`; `permissionDenied` where the folder may be listed, and its links may not be read: that takes
    ///   PTRACE_MODE_READ (fs/proc/base.c, proc_fd_access_allowed), the list CAP_DAC_READ_SEARCH or the same user. A
    ///   process that has ended since gives the same error.
    ///
    /// - Parameter first: what was read already.
    func descriptors(in path: String, first: DescriptorReading? = nil) throws -> DescriptorTable? {
        var reading = try first ?? read(path, besides: DescriptorTable())
        var table = reading.table
        var isEmpty = reading.count == 0
        for _ in 1..<Self.maxReadings where reading.hasVanished {
            reading = try read(path, besides: table)
            isEmpty = isEmpty && reading.count == 0
            table.add(reading.table)
        }
        table.sockets.sort { $0.fd < $1.fd }
        if table.hasDuplicates { dropPathDescriptors(from: &table, in: path) }
        return isEmpty ? nil : table
    }

    /// A descriptor that is closed while the folder is read may have been moved (dup2(2)) to a number behind which the
    /// list was already read.
    private static let maxReadings = 3

    /// The links that the table does not have yet.
    private func read(_ path: String, besides table: DescriptorTable) throws -> DescriptorReading {
        let known = Set(table.sockets.map(\.fd) + table.rings)
        var reading = DescriptorReading()
        var failure: Errno?
        try eachNumber(in: path) { folder, number, name in
            if known.contains(number) {
                reading.count += 1
            } else if let error = reading.read(number, in: folder, name) {
                failure = error
            }
        }
        if let failure { throw failure }
        return reading
    }

    /// Drops O_PATH descriptors of a socket that has another descriptor. No call can be made on them.
    private func dropPathDescriptors(from table: inout DescriptorTable, in path: String) {
        let counts = table.sockets.reduce(into: [:]) { $0[$1.inode, default: 0] += 1 }
        let usable = table.sockets.filter { counts[$0.inode] == 1 || !isPathDescriptor("\(path)/\($0.fd)") }
        // Where all are O_PATH, the call says what is wrong.
        let inodes = Set(usable.map(\.inode))
        let numbers = Set(usable.map(\.fd))
        table.sockets.removeAll { inodes.contains($0.inode) && !numbers.contains($0.fd) }
    }

    /// Whether a link in a descriptor folder is of a descriptor without rights to read and write, such as O_PATH
    /// (proc_pid_fd(5)).
    func isPathDescriptor(_ link: String) -> Bool {
        var status = stat()
        return fstatat(root.rawValue, link, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_mode & 0o600 == 0
    }

    /// Whether a thread has ended, or is about to: it has no descriptor table any more (kernel/exit.c, exit_files;
    /// `FDSize` is 0 then, fs/proc/array.c). Until it is gone, its folders are empty, and its links give EACCES.
    ///
    /// - Parameter thread: `PID/task/TID`.
    func hasEnded(_ thread: String) -> Bool {
        do {
            return try status(thread).descriptorTableSize == 0
        } catch {
            return [.noSuchFileOrDirectory, .noSuchProcess].contains(error as? Errno)
        }
    }

    /// By its number. Inlined, the path at each place makes the program larger.
    @inline(never)
    func hasEnded(_ tid: Int32, of pid: Int32) -> Bool { hasEnded("\(pid)/task/\(tid)") }

    /// How many threads a process has. Its `task` folder has one link for each, and two more (fs/proc/base.c,
    /// proc_task_getattr).
    func threadCount(of pid: Int32) -> Int {
        var status = stat()
        return fstatat(root.rawValue, "\(pid)/task", &status, 0) == 0 ? Int(status.st_nlink) - 2 : 0
    }

    private func eachNumber(
        in path: String, _ body: (_ folder: Int32, _ number: Int32, _ name: UnsafePointer<CChar>) -> Void
    ) throws {
        let file = openat(root.rawValue, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        var entries = try FolderEntries(file)
        let visit: (UnsafePointer<CChar>, Bool) -> Void = { name, _ in
            let text = UnsafeRawBufferPointer(start: name, count: strlen(name))
            if let number = text.decimal(Int32.self) { body(file, number, name) }
        }
        while entries.next(visit) != nil {}
        // A process that ends meanwhile has no more entries.
        if let error = entries.error, ![.noSuchFileOrDirectory, .noSuchProcess].contains(error) { throw error }
    }

    /// The device and inode of the file that a path leads to (stat(2)).
    func identity(_ path: String) -> FileIdentity? {
        var status = stat()
        guard fstatat(root.rawValue, path, &status, 0) == 0 else { return nil }
        return FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }
}

/// What a descriptor table holds, as far as it matters here.
struct DescriptorTable {
    /// By number.
    var sockets: [SocketDescriptor] = []
    /// Descriptors of io_uring, which may have files of its own registered.
    var rings: [Int32] = []

    mutating func add(_ other: DescriptorTable) {
        sockets += other.sockets
        rings += other.rings
    }

    /// Two descriptors are the same socket. Sockets are mostly numbered in the order of their descriptors, so that there
    /// is little to sort.
    fileprivate var hasDuplicates: Bool {
        let inodes = sockets.map(\.inode).sorted()
        return zip(inodes, inodes.dropFirst()).contains { $0 == $1 }
    }
}

/// What one reading of a folder with descriptors has found.
struct DescriptorReading {
    var table = DescriptorTable()
    /// How many descriptors there are.
    fileprivate(set) var count = 0
    /// Some were gone when their links were read.
    private(set) var hasVanished = false

    /// Reads the link of a descriptor that the folder lists.
    ///
    /// - Returns: an error that is not the descriptor's end.
    mutating func read(_ number: Int32, in folder: Int32, _ name: UnsafePointer<CChar>) -> Errno? {
        let error = readLink(number, in: folder, name)
        guard error == .noSuchFileOrDirectory else { return error }
        count += 1
        hasVanished = true
        return nil
    }

    /// Reads the link of a descriptor that may be there. ENOENT: it is not.
    @inline(__always)
    mutating func readLink(_ number: Int32, in folder: Int32, _ name: UnsafePointer<CChar>) -> Errno? {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 64) { target in
            // A longer link is no socket: `socket:[` and at most 20 digits.
            let length = readlinkat(folder, name, target.baseAddress!, target.count)
            if length < 0 { return Errno(rawValue: errno) }
            count += 1
            if let inode = target[..<length].inode(ofKind: "socket") {
                table.sockets.append(SocketDescriptor(fd: number, inode: inode))
            } else if target[..<length].elementsEqual("anon_inode:[io_uring]".utf8) {
                table.rings.append(number)
            }
            return nil
        }
    }

    mutating func remove(_ numbers: Set<Int32>) {
        table.sockets.removeAll { numbers.contains($0.fd) }
        table.rings.removeAll(where: numbers.contains)
    }

    mutating func add(_ other: DescriptorReading) {
        table.add(other.table)
        count += other.count
        hasVanished = hasVanished || other.hasVanished
    }
}

/// A descriptor that is a socket, and the socket's inode.
struct SocketDescriptor: Hashable {
    let fd: Int32
    let inode: UInt64
}

/// The device and inode of a file: equal for the same file under any name.
struct FileIdentity: Hashable, Sendable {
    let device: UInt64
    let inode: UInt64
}

/// The files that an io_uring holds itself, as `/proc/PID/fdinfo/N` lists them (io_uring/fdinfo.c).
/// Pure: bytes in, values out.
struct RingFiles: Equatable {
    /// Inodes of sockets.
    private(set) var sockets: Set<UInt64> = []
    /// The list may have more sockets: it is missing because the ring was busy, or the kernel lists the kind of the
    /// socket instead of its inode.
    private(set) var isIncomplete = false

    /// The list follows the line `UserFiles: COUNT`. Its lines are `NUMBER: PATH`, and empty places have none.
    init(_ text: some BidirectionalCollection<UInt8>) {
        var places: Int?
        var entries = 0
        for line in text.split(separator: UInt8(ascii: "\n")) {
            let words = line.split { $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: " ") }
            guard let first = words.first, let last = words.last, words.count >= 2 else { continue }
            if first.elementsEqual("UserFiles:".utf8) {
                places = last.decimal() ?? .max
            } else if places != nil {
                guard first.dropLast().decimal(UInt32.self) != nil else { break }
                entries += 1
                if let inode = Array(last).inode(ofKind: "socket") {
                    sockets.insert(inode)
                } else if ["TCP", "TCPv6", "MPTCP", "MPTCPv6"].contains(where: { last.elementsEqual($0.utf8) }) {
                    isIncomplete = true
                }
            }
        }
        if entries == 0 && places != 0 { isIncomplete = true }
    }
}

extension ProcFS {
    /// A whole small file; nil if it cannot be read.
    func text(_ path: String) -> [UInt8]? {
        try? read(path) { Array($0) }
    }

    /// The number that a file contains; nil if it has none.
    func number(_ path: String) -> Int? {
        text(path)?.dropTrailingNewlines.decimal()
    }
}

extension [UInt8] {
    var dropTrailingNewlines: ArraySlice<UInt8> {
        self[..<(lastIndex { $0 != UInt8(ascii: "\n") }.map { $0 + 1 } ?? 0)]
    }
}

import CSockalive
import Glibc
import Synchronization
import SystemPackage

/// Finds, among all processes, those that go by one of some names.
///
/// This is most of what a run costs on a busy host: two small questions to each of a thousand processes,
/// 10 µs together. So no text is made, nothing is allocated per process unless there are many names, and several
/// processors share the work.
struct CommScan: Sendable {
    /// A descriptor of `/proc`.
    private let root: Int32
    private let names: [UntrustedText]
    /// The names of a large file of rules. A few are compared faster than one is looked up.
    private let manyNames: Set<UntrustedText>?
    /// What the kernel leaves in comm of the longer ones.
    private let manyCutNames: Set<UntrustedText>
    /// Processes whose link to the executable hung. They are judged by comm alone.
    private let hung: Set<Int32>
    /// All are.
    private let isByComm: Bool

    /// The kernel cuts comm at 15 bytes (TASK_COMM_LEN).
    static let maxCommLength = 15
    private static let maxThreads = WorkerProgress.maxScanThreads
    /// Fewer processes are not worth a thread.
    private static let processesPerThread = 150
    private static let maxCompared = 16

    init(root: Int32, names: [UntrustedText], hung: Set<Int32> = [], isByComm: Bool = false) {
        self.root = root
        self.names = names
        self.hung = hung
        self.isByComm = isByComm
        let areMany = names.count > Self.maxCompared
        manyNames = areMany ? Set(names) : nil
        let cutNames = areMany ? names.filter { $0.bytes.count >= Self.maxCommLength } : []
        manyCutNames = Set(cutNames.map { UntrustedText($0.bytes.prefix(Self.maxCommLength)) })
    }

    /// Whether comm, or the base name of the executable, is one of the names: comm is cut, and a program may
    /// change it, so that the file's name counts too.
    func matches(_ pid: Int32) -> Bool {
        Self.withMemory { if case .no = answer(pid, $0, thread: 0) { false } else { true } }
    }

    /// What a process says to the names.
    private enum Answer {
        case no, yes
        /// It could not be asked, for a reason that is this program's own: no descriptors left, no memory.
        case failed(Errno)
    }

    private static let pathSize = 32
    private static let commSize = 16

    /// For a path, for comm and for a longer text. Too large for the stack, so that it is taken once for many processes.
    private static func withMemory<Result>(_ body: (Bytes) -> Result) -> Result {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pathSize + commSize + Int(PATH_MAX), body)
    }

    private func answer(_ pid: Int32, _ memory: Bytes, thread: Int) -> Answer {
        let path = Bytes(rebasing: memory[..<Self.pathSize])
        let room = Bytes(rebasing: memory[Self.pathSize..<Self.pathSize + Self.commSize])
        let text = Bytes(rebasing: memory[(Self.pathSize + Self.commSize)...])
        var count = read(pid, "/comm", path, into: room)
        if count < 0 { return Self.answer(errno) }
        // The text and a line end.
        let comm = room[..<max(0, count - 1)]
        if isWanted(comm) { return .yes }
        // Whether a longer name may stand behind it.
        let isCutOff = isCutOff(comm)
        if isByComm || hung.contains(pid) { return isCutOff ? .yes : .no }
        // The link waits for the end of an execve(2) of the process (exec_update_lock), which may wait for a file server.
        WorkerProgress.scan(pid, thread: thread)
        defer { WorkerProgress.scan(0, thread: thread) }
        let link = Self.path(pid, "/exe", in: path)
        count = text.withMemoryRebound(to: CChar.self) { readlinkat(root, link, $0.baseAddress!, $0.count) }
        if count < 0 {
            // Where the link may not be read, the process counts as meant if its own word says so. Its descriptors will
            // say that they may not be read, either.
            let error = errno
            guard Errno(rawValue: error).isPermission else { return Self.answer(error) }
            if isCutOff { return .yes }
            let isLoader = comm.isLoader
            count = read(pid, "/cmdline", path, into: text)
            return count > 0 && namesOneOf(text[..<count], isLoader ? .max : 1) ? .yes : .no
        }
        let program = text[..<count].withoutDeletedSuffix.baseName
        if isWanted(program) { return .yes }
        guard isCutOff || program.isLoader else { return .no }
        // A script, or a program that the dynamic loader was told to run: its name is among the arguments.
        count = read(pid, "/cmdline", path, into: text)
        return count > 0 && namesOneOf(text[..<count], .max) ? .yes : .no
    }

    /// What an error means for the question.
    private static func answer(_ error: Int32) -> Answer {
        [EMFILE, ENFILE, ENOMEM].contains(error) ? .failed(Errno(rawValue: error)) : .no
    }

    private func read(_ pid: Int32, _ file: StaticString, _ path: Bytes, into bytes: Bytes) -> Int {
        let file = openat(root, Self.path(pid, file, in: path), O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return -1 }
        defer { close(file) }
        return Glibc.read(file, bytes.baseAddress, bytes.count)
    }

    /// Whether one of the first arguments, or its base name, is one of the names. Each argument ends with a zero byte.
    private func namesOneOf(_ arguments: Slice<Bytes>, _ count: Int) -> Bool {
        arguments.split(separator: 0).prefix(count).contains { isWanted($0) || isWanted($0.baseName) }
    }

    private typealias Bytes = UnsafeMutableBufferPointer<UInt8>

    private func isWanted(_ name: Slice<Bytes>) -> Bool {
        if let manyNames { return manyNames.contains(UntrustedText(name)) }
        return names.contains { $0.bytes.count == name.count && $0.bytes.elementsEqual(name) }
    }

    /// What the kernel leaves in comm of a longer name.
    private func isCutOff(_ comm: Slice<Bytes>) -> Bool {
        guard comm.count == Self.maxCommLength else { return false }
        if manyNames != nil { return manyCutNames.contains(UntrustedText(comm)) }
        return names.contains { $0.bytes.starts(with: comm) }
    }

    /// `PID/file` as a C string, without a `String`. At most 10 digits and a short name.
    private static func path(_ pid: Int32, _ file: StaticString, in memory: Bytes) -> UnsafePointer<CChar> {
        var digits = 0
        var rest = pid
        repeat {
            rest /= 10
            digits += 1
        } while rest > 0
        rest = pid
        for position in (0..<digits).reversed() {
            memory[position] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        }
        for index in 0...file.utf8CodeUnitCount { memory[digits + index] = file.utf8Start[index] }
        return UnsafeRawPointer(memory.baseAddress!).assumingMemoryBound(to: CChar.self)
    }
}

extension CommScan {
    /// The processes that match, ascending.
    ///
    /// - Throws: `Errno` where `/proc` cannot be listed.
    func matching() throws(Errno) -> [Int32] {
        let folder = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw Errno(rawValue: errno) }
        defer { close(folder) }
        let job = Job(scan: self, folder: folder)
        job.share(among: Self.threads(for: folder))
        return try job.result()
    }

    /// How many threads are worth while: `/proc` has a link for each process (fs/proc/root.c, proc_root_getattr).
    private static func threads(for folder: Int32) -> Int {
        var status = stat()
        guard fstat(folder, &status) == 0, status.st_nlink >= 2 * processesPerThread else { return 1 }
        return min(maxThreads, Int(status.st_nlink) / processesPerThread, Int(sockalive_processors()))
    }

    /// Threads that read the same open folder: each takes the next few entries, until none are left.
    private final class Job: Sendable {
        private let scan: CommScan
        private let folder: Int32
        private let threads = Mutex(0)
        private let hits = Mutex<(pids: [Int32], error: Errno?)>(([], nil))

        /// Some 20 processes at a time: a thread that comes last is waited for as long as those take.
        private static let portion = 512

        init(scan: CommScan, folder: Int32) {
            self.scan = scan
            self.folder = folder
        }

        func result() throws(Errno) -> [Int32] {
            let (pids, error) = hits.withLock { $0 }
            if let error { throw error }
            return pids.sorted()
        }

        /// Where a thread cannot be had, the others do its part.
        func share(among threads: Int) {
            let job = Unmanaged.passUnretained(self).toOpaque()
            let helpers = (1..<max(1, threads)).compactMap { _ -> pthread_t? in
                var thread = pthread_t()
                let status = sockalive_start_on_other_cpu(
                    &thread,
                    { job in
                        Unmanaged<Job>.fromOpaque(job!).takeUnretainedValue().run()
                        return nil
                    }, job)
                return status == 0 ? thread : nil
            }
            run()
            for helper in helpers { pthread_join(helper, nil) }
        }

        private func run() {
            let thread = threads.withLock { count in
                defer { count += 1 }
                return count
            }
            CommScan.withMemory { memory in
                withUnsafeTemporaryAllocation(byteCount: Self.portion, alignment: 8) { entries in
                    while let pids = next(into: entries) {
                        for pid in pids {
                            switch scan.answer(pid, memory, thread: thread) {
                            case .no: break
                            case .yes: hits.withLock { $0.pids.append(pid) }
                            case .failed(let error): hits.withLock { $0.error = error }
                            }
                        }
                    }
                }
            }
        }

        private func next(into entries: UnsafeMutableRawBufferPointer) -> DirectoryEntries? {
            let count = sockalive_getdents(folder, entries.baseAddress, entries.count)
            if count < 0 { hits.withLock { $0.error = Errno(rawValue: Int32(-count)) } }
            guard count > 0 else { return nil }
            return DirectoryEntries(UnsafeRawBufferPointer(rebasing: entries[..<count]))
        }
    }
}

/// The entries that getdents64(2) answers whose names are numbers: inode, offset, length, type, name.
struct DirectoryEntries: Sequence, IteratorProtocol {
    private static let nameOffset = 19

    private var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) {
        rest = bytes
    }

    mutating func next() -> Int32? {
        while let length: UInt16 = rest.number(at: 16), length > Self.nameOffset, length <= rest.count {
            let number = rest[Self.nameOffset..<Int(length)].prefix { $0 != 0 }.decimal(Int32.self)
            rest = UnsafeRawBufferPointer(rebasing: rest[Int(length)...])
            if let number { return number }
        }
        return nil
    }
}

extension BidirectionalCollection<UInt8> {
    /// What stands behind the last slash.
    var baseName: SubSequence {
        suffix(from: lastIndex(of: UInt8(ascii: "/")).map { index(after: $0) } ?? startIndex)
    }

    /// The base name of a dynamic loader, such as `ld-linux-x86-64.so.2` or `ld-2.31.so`.
    var isLoader: Bool { starts(with: "ld-".utf8) || starts(with: "ld.so".utf8) }

    /// The kernel adds ` (deleted)` to the path of an unlinked file (fs/d_path.c).
    var withoutDeletedSuffix: SubSequence {
        let marker: StaticString = " (deleted)"
        let bytes = UnsafeBufferPointer(start: marker.utf8Start, count: marker.utf8CodeUnitCount)
        return suffix(bytes.count).elementsEqual(bytes) ? dropLast(bytes.count) : self[...]
    }
}

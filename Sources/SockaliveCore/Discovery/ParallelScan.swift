import CSockalive
import Glibc
import SystemPackage

/// A small question to every process.
protocol ProcessScan: Sendable {
    /// A descriptor of `/proc`.
    var root: Int32 { get }
    /// - Parameter thread: the number of the thread that asks.
    func answer(_ pid: Int32, _ memory: ScanMemory, thread: Int) -> ScanAnswer
}

/// What a process says to it.
enum ScanAnswer {
    case no, yes
    /// It could not be asked, for a reason that is this program's own: no descriptors left, no memory.
    case failed(Errno)

    init(error: Int32) {
        self = [EMFILE, ENFILE, ENOMEM].contains(error) ? .failed(Errno(rawValue: error)) : .no
    }
}

/// Room for a path and for a text. Too large for the stack, so that it is taken once for many processes.
struct ScanMemory {
    typealias Bytes = UnsafeMutableBufferPointer<UInt8>

    private let room: Bytes
    let text: Bytes

    private static let pathSize = 32

    static func with<Result>(_ body: (ScanMemory) -> Result) -> Result {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pathSize + 16 + Int(PATH_MAX)) { bytes in
            body(ScanMemory(room: Bytes(rebasing: bytes[..<pathSize]), text: Bytes(rebasing: bytes[pathSize...])))
        }
    }

    /// `PID/file` as a C string, without a `String`. At most 10 digits and a short name.
    func path(_ pid: Int32, _ file: StaticString) -> UnsafePointer<CChar> {
        var digits = 0
        var rest = pid
        repeat {
            rest /= 10
            digits += 1
        } while rest > 0
        rest = pid
        for position in (0..<digits).reversed() {
            room[position] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        }
        for index in 0...file.utf8CodeUnitCount { room[digits + index] = file.utf8Start[index] }
        return UnsafeRawPointer(room.baseAddress!).assumingMemoryBound(to: CChar.self)
    }

    /// - Returns: a negative number after an error, which is in `errno` then.
    func read(_ pid: Int32, _ file: StaticString, of root: Int32, into bytes: Bytes) -> Int {
        let file = openat(root, path(pid, file), O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return -1 }
        defer { close(file) }
        return Glibc.read(file, bytes.baseAddress, bytes.count)
    }
}

extension ProcessScan {
    /// The processes that match, ascending.
    ///
    /// - Throws: `Errno` where `/proc` cannot be listed.
    func matching() throws(Errno) -> [Int32] {
        let folder = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw Errno(rawValue: errno) }
        defer { close(folder) }
        let job = ScanJob(scan: self, folder: folder)
        job.share(among: ScanThreads.count(for: folder))
        return try job.result()
    }
}

private enum ScanThreads {
    private static let max = WorkerProgress.maxScanThreads
    /// Fewer processes are not worth a thread.
    private static let processesPerThread = 150

    /// How many threads are worth while: `/proc` has a link for each process (fs/proc/root.c, proc_root_getattr).
    static func count(for folder: Int32) -> Int {
        var status = stat()
        guard fstat(folder, &status) == 0, status.st_nlink >= 2 * processesPerThread else { return 1 }
        return min(max, Int(status.st_nlink) / processesPerThread, Int(sockalive_processors()))
    }
}

/// Threads that read the same open folder: each takes the next few entries, until none are left.
private final class ScanJob: Sendable {
    private let scan: any ProcessScan
    private let folder: Int32
    private let threads = Locked(0)
    private let hits = Locked<(pids: [Int32], error: Errno?)>(([], nil))

    /// Some 20 processes at a time: a thread that comes last is waited for as long as those take.
    private static let portion = 512

    init(scan: any ProcessScan, folder: Int32) {
        self.scan = scan
        self.folder = folder
    }

    func result() throws(Errno) -> [Int32] {
        let (pids, error) = hits.withLock { $0 }
        if let error { throw error }
        return pids.sorted()
    }

    /// Where no thread can be had, or one is enough, the caller does it.
    func share(among count: Int) {
        let job = Unmanaged.passUnretained(self).toOpaque()
        let threads = startThreads(count > 1 ? count : 0, job) { job in
            // Each opens and closes a file a process. In a table that several threads share, each of these calls takes a
            // lock (fs/file.c, alloc_fd) and counts the users of the open folder. Where a sandbox forbids it, they share.
            _ = sockalive_unshare(CLONE_FILES)
            Unmanaged<ScanJob>.fromOpaque(job!).takeUnretainedValue().run()
            return nil
        }
        if threads.isEmpty { run() }
        for thread in threads { pthread_join(thread, nil) }
    }

    private func run() {
        let thread = threads.withLock { count in
            defer { count += 1 }
            return count
        }
        ScanMemory.with { memory in
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

/// The entries that getdents64(2) answers whose names are numbers: inode, offset, length, type, name.
struct DirectoryEntries: Sequence, IteratorProtocol {
    private static let nameOffset = 19

    private var rest: UnsafeRawBufferPointer
    /// Of the last entry, with a zero byte at its end. It is in the given bytes.
    private(set) var name: UnsafePointer<CChar>?

    init(_ bytes: UnsafeRawBufferPointer) {
        rest = bytes
    }

    mutating func next() -> Int32? {
        while let length: UInt16 = rest.number(at: 16), length > Self.nameOffset, length <= rest.count {
            let bytes = UnsafeRawBufferPointer(rebasing: rest[Self.nameOffset..<Int(length)])
            let number = bytes.prefix { $0 != 0 }.decimal(Int32.self)
            name = bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
            rest = UnsafeRawBufferPointer(rebasing: rest[Int(length)...])
            if let number { return number }
        }
        return nil
    }
}

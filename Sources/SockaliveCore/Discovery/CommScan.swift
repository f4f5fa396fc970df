import CSockalive
import Glibc
import Synchronization
import SystemPackage

/// Finds, among all processes, those that go by one of some names.
///
/// This is most of what a run costs on a busy host: two small questions to each of a thousand processes,
/// 10 µs together. So no text is made, nothing is allocated per process, and several processors share the work.
struct CommScan: Sendable {
    /// A descriptor of `/proc`.
    let root: Int32
    let names: [UntrustedText]
    /// Processes whose link to the executable hung. They are judged by comm alone.
    var hung: Set<Int32> = []

    /// The kernel cuts comm at 15 bytes (TASK_COMM_LEN).
    private static let maxCommLength = 15
    private static let maxThreads = WorkerProgress.maxScanThreads
    /// Fewer processes are not worth a thread.
    private static let processesPerThread = 150

    /// Whether comm, or the base name of the executable, is one of the names: comm is cut, and a program may
    /// change it, so that the file's name counts too.
    func matches(_ pid: Int32) -> Bool {
        Self.withMemory { matches(pid, $0, thread: 0) }
    }

    private func matches(_ pid: Int32, _ memory: Bytes, thread: Int) -> Bool {
        let path = Bytes(rebasing: memory[..<32])
        let answer = Bytes(rebasing: memory[32...])
        guard !commMatches(pid, path, answer) else { return true }
        guard !hung.contains(pid) else { return false }
        // The link waits for the end of an execve(2) of the process (exec_update_lock), which may wait for a file server.
        WorkerProgress.scan(pid, thread: thread)
        defer { WorkerProgress.scan(0, thread: thread) }
        return executableMatches(pid, path, answer)
    }

    /// For a question and its answer. Too large for the stack, so that it is taken once for many processes.
    private static func withMemory<Result>(_ body: (Bytes) -> Result) -> Result {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 32 + Int(PATH_MAX), body)
    }

    private func commMatches(_ pid: Int32, _ path: Bytes, _ answer: Bytes) -> Bool {
        let isWorthAsking = hung.contains(pid) || names.contains { $0.bytes.count <= Self.maxCommLength }
        guard isWorthAsking else { return false }
        let file = openat(root, Self.path(pid, "/comm", in: path), O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        // The text and a line end.
        let count = read(file, answer.baseAddress, answer.count)
        guard count > 0 else { return false }
        let comm = answer[..<(count - 1)]
        return isWanted(comm) || (hung.contains(pid) && isCutOff(comm))
    }

    private func executableMatches(_ pid: Int32, _ path: Bytes, _ answer: Bytes) -> Bool {
        let path = Self.path(pid, "/exe", in: path)
        let count = answer.withMemoryRebound(to: CChar.self) { readlinkat(root, path, $0.baseAddress!, $0.count) }
        guard count > 0 else { return false }
        let link = answer[..<count].withoutDeletedSuffix
        let start = link.lastIndex(of: UInt8(ascii: "/")).map { $0 + 1 } ?? link.startIndex
        return isWanted(link[start...])
    }

    private typealias Bytes = UnsafeMutableBufferPointer<UInt8>

    private func isWanted(_ name: Slice<UnsafeMutableBufferPointer<UInt8>>) -> Bool {
        names.contains { $0.bytes.count == name.count && $0.bytes.elementsEqual(name) }
    }

    /// What the kernel leaves in comm of a longer name.
    private func isCutOff(_ comm: Slice<UnsafeMutableBufferPointer<UInt8>>) -> Bool {
        comm.count == Self.maxCommLength && names.contains { $0.bytes.starts(with: comm) }
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
                        for pid in pids where scan.matches(pid, memory, thread: thread) {
                            hits.withLock { $0.pids.append(pid) }
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
    /// The kernel adds ` (deleted)` to the path of an unlinked file (fs/d_path.c).
    var withoutDeletedSuffix: SubSequence {
        let marker: StaticString = " (deleted)"
        let bytes = UnsafeBufferPointer(start: marker.utf8Start, count: marker.utf8CodeUnitCount)
        return suffix(bytes.count).elementsEqual(bytes) ? dropLast(bytes.count) : self[...]
    }
}

import CSockalive
import Glibc
import Synchronization
import SystemPackage

/// Reads a process with thousands of descriptors by several threads, and besides them the table of its sockets, which
/// such a process needs.
///
/// Reading a link takes 3 µs, of which most is the kernel's own work. So that a worker can be judged from outside, each
/// thread says where it is, as those of ``SharedTreatment`` do.
final class LargeProcess: @unchecked Sendable {
    private let folder: Int32
    private let pid: Int32
    /// Reads the socket table; nil where nobody needs it.
    private let readTable: (() -> FoundRows?)?
    private let part: Locked<Part>
    private let nextRange = Atomic<Int32>(0)
    private let nextThread = Atomic<Int>(1)

    /// What the threads have found.
    private struct Part {
        var links = DescriptorReading()
        /// Not everything was read, or not as it was expected.
        var isBroken = false
        var rows: FoundRows?
    }

    /// Fewer descriptors are not worth the threads.
    private static let minDescriptors = 2048
    /// So many numbers a thread takes at once.
    private static let range: Int32 = 1024
    /// Of an entry whose name is a number: at most 10 digits.
    private static let maxEntrySize = 32

    private init(folder: Int32, pid: Int32, readTable: (() -> FoundRows?)?) {
        self.folder = folder
        self.pid = pid
        self.readTable = readTable
        part = Locked(Part())
    }

    /// Whether it has so many descriptors. Since Linux 6.2 that is the size of the folder with the links (fs/proc/fd.c,
    /// proc_fd_getattr); before, nobody tells.
    static func isLarge(_ pid: Int32, _ procfs: ProcFS) -> Bool {
        var status = stat()
        return fstatat(procfs.root.rawValue, "\(pid)/fd", &status, 0) == 0 && status.st_size >= minDescriptors
    }

    /// The main thread only waits (``startThreads(_:_:_:)``).
    ///
    /// - Parameter readTable: reads the socket table, by one of the threads, and says nothing of its progress.
    /// - Returns: nil where it is to be read in the ordinary way, which tells the error, too.
    static func read(
        _ pid: Int32, _ procfs: ProcFS, threads: Int, readTable: (() -> FoundRows?)?
    ) -> (links: DescriptorReading, rows: FoundRows?)? {
        let folder = openat(procfs.root.rawValue, "\(pid)/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { return nil }
        defer { close(folder) }
        let process = LargeProcess(folder: folder, pid: pid, readTable: readTable)
        let argument = Unmanaged.passUnretained(process).toOpaque()
        WorkerProgress.enter(.sharedSockets)
        let started = startThreads(threads, argument) { argument in
            let process = Unmanaged<LargeProcess>.fromOpaque(argument!).takeUnretainedValue()
            let thread = WorkerThread(number: process.nextThread.add(1, ordering: .relaxed).oldValue)
            thread.begin()
            process.work(thread)
            thread.enter(.none)
            return nil
        }
        for thread in started { pthread_join(thread, nil) }
        WorkerProgress.enter(.descriptors, pid)
        let part = process.part.withLock { $0 }
        return started.isEmpty || part.isBroken ? nil : (part.links, part.rows)
    }

    private func work(_ thread: WorkerThread) {
        if thread.number == 1, let readTable {
            thread.enter(.socketTable)
            let rows = readTable()
            part.withLock { $0.rows = rows }
        }
        var own = Part()
        // A position of its own in the folder.
        let mine = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if mine < 0 { own.isBroken = true }
        var isOver = false
        while !own.isBroken && !isOver {
            thread.enter(.descriptors, pid)
            if WorkerProgress.isSharingOver {
                own.isBroken = true
                break
            }
            let first = nextRange.add(Self.range, ordering: .relaxed).oldValue
            isOver = !read(mine, first..<first + Self.range, into: &own)
        }
        close(mine)
        part.withLock {
            $0.links.add(own.links)
            $0.isBroken = $0.isBroken || own.isBroken
        }
    }

    /// A position in the folder is a descriptor's number plus 2, for `.` and `..` (fs/proc/fd.c, proc_readfd_common). If
    /// that ever changes, the number of an entry that comes is too small, and the folder is read from its beginning.
    ///
    /// - Returns: whether there are descriptors with these numbers or higher ones.
    private func read(_ folder: Int32, _ numbers: Range<Int32>, into part: inout Part) -> Bool {
        var next = numbers.lowerBound
        guard lseek(folder, Int(next) + 2, SEEK_SET) >= 0 else {
            part.isBroken = true
            return false
        }
        return withUnsafeTemporaryAllocation(byteCount: Int(Self.range) * Self.maxEntrySize, alignment: 8) { entries in
            while next < numbers.upperBound {
                // Not more than the rest of the numbers may need: each entry costs.
                let size = max(Int(numbers.upperBound - next), 2) * Self.maxEntrySize
                let count = sockalive_getdents(folder, entries.baseAddress, min(size, entries.count))
                if count < 0 { part.isBroken = true }
                guard count > 0 else { return false }
                var names = DirectoryEntries(UnsafeRawBufferPointer(rebasing: entries[..<count]))
                while let number = names.next(), let name = names.name {
                    if number >= numbers.upperBound { return true }
                    if number < next || part.links.read(number, in: folder, name) != nil {
                        part.isBroken = true
                        return false
                    }
                    next = number + 1
                }
            }
            return true
        }
    }
}

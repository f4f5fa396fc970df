import CSockalive
import Glibc
import Synchronization
import SystemPackage

/// Reads a process with thousands of descriptors by several threads, and besides them the socket table, as soon as they
/// have found so many sockets that it is needed.
///
/// Reading a link takes 3 µs, of which most is the kernel's own work. So that a worker can be judged from outside, each
/// thread says where it is, as those of ``SharedTreatment`` do: once, so that a process which takes too long, by a million
/// descriptors perhaps, is left out.
final class LargeProcess: @unchecked Sendable {
    /// Reads the socket table, without a word of its progress.
    struct Table {
        /// It is not needed for fewer sockets.
        let minSockets: Int
        let read: () -> FoundRows?
    }

    private let folder: Int32
    private let pid: Int32
    private let table: Table?
    private let stopReason: () -> StopReason?
    private let part: Locked<Part>
    private let nextNumber = Atomic<Int32>(0)
    private let sockets = Atomic<Int>(0)
    private let isTableTaken = Atomic<Bool>(false)

    /// What the threads have found.
    fileprivate struct Part {
        var links = DescriptorReading()
        /// Numbers that were asked for in vain, and those between numbers that the kernel listed.
        var missed: [Int32] = []
        var gaps: [Range<Int32>] = []
        /// Not everything was read, or not as it was expected.
        var isBroken = false
        var stop: StopReason?
        var rows: FoundRows?
    }

    /// Fewer descriptors are not worth the threads.
    private static let minDescriptors = 2048
    /// So many numbers a thread takes at once.
    private static let range: Int32 = 1024
    /// Of an entry whose name is a number: at most 10 digits.
    private static let maxEntrySize = 32
    /// So many numbers of a range may be missing before the kernel is asked which ones there are.
    private static let maxMissing = 32
    private static let maxGaps = 8192

    private init(_ folder: Int32, _ pid: Int32, _ table: Table?, _ stopReason: @escaping () -> StopReason?) {
        self.folder = folder
        self.pid = pid
        self.table = table
        self.stopReason = stopReason
        part = Locked(Part())
    }

    /// Whether it has so many descriptors. Before Linux 6.2 nobody tells.
    static func isLarge(_ pid: Int32, _ procfs: ProcFS) -> Bool {
        var status = stat()
        return fstatat(procfs.root.rawValue, "\(pid)/fd", &status, 0) == 0 && status.st_size >= minDescriptors
    }

    /// How many numbers it has taken: since Linux 6.2 the size of the folder with the links (fs/proc/fd.c,
    /// proc_fd_getattr). Those count that wait for their file, too: a thread in accept(2) has one (net/socket.c,
    /// __sys_accept4_file).
    private var size: Int {
        var status = stat()
        return fstat(folder, &status) == 0 ? Int(status.st_size) : 0
    }

    /// What was read of a process.
    struct Reading {
        let links: DescriptorReading
        /// nil where it was not needed, or there is none.
        let rows: FoundRows?
        let hasTriedTable: Bool
    }

    /// - Parameter stopReason: asked by each thread for each thousand descriptors.
    /// - Returns: nil where it is to be read in the ordinary way, which tells the error, too.
    static func read(
        _ pid: Int32, _ procfs: ProcFS, threads: Int, _ table: Table?, stopReason: () -> StopReason?
    ) throws(StopReason) -> Reading? {
        let folder = openat(procfs.root.rawValue, "\(pid)/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { return nil }
        defer { close(folder) }
        let reading = withoutActuallyEscaping(stopReason) { stopReason in
            LargeProcess(folder, pid, table, stopReason).reading(threads)
        }
        return try reading.get()
    }

    private func reading(_ threads: Int) -> Result<Reading?, StopReason> {
        let before = size
        let started = WorkerThread.share(among: threads, work)
        WorkerProgress.enter(.descriptors, pid)
        var part = part.withLock { $0 }
        if let stop = part.stop { return .failure(stop) }
        if started == 0 || part.isBroken { return .success(nil) }
        let after = size
        if before != after || part.links.count < after { readAgain(&part) }
        if part.isBroken { return .success(nil) }
        return .success(
            Reading(links: part.links, rows: part.rows, hasTriedTable: isTableTaken.load(ordering: .relaxed)))
    }

    private func work(_ thread: WorkerThread) {
        var own = Part()
        // A position of its own in the folder.
        let mine = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if mine < 0 { own.isBroken = true }
        thread.enter(.descriptors, pid)
        var isOver = false
        while !own.isBroken && !isOver {
            own.stop = stopReason()
            if own.stop != nil || WorkerProgress.isSharingOver {
                own.isBroken = true
                break
            }
            let known = own.links.table.sockets.count
            let first = nextNumber.add(Self.range, ordering: .relaxed).oldValue
            isOver = !read(mine, first..<first + Self.range, into: &own)
            let count = own.links.table.sockets.count - known
            readTable(thread, ifNeededFor: sockets.add(count, ordering: .relaxed).newValue, into: &own)
        }
        close(mine)
        part.withLock {
            $0.links.add(own.links)
            $0.missed += own.missed
            $0.gaps += own.gaps
            $0.isBroken = $0.isBroken || own.isBroken
            $0.stop = $0.stop ?? own.stop
            $0.rows = $0.rows ?? own.rows
        }
    }

    /// A descriptor may have been moved (dup2(2)), from a number that was asked for later to one that was missing before.
    private func readAgain(_ part: inout Part) {
        // Nobody has so many; a process that wants to be slow to look at might.
        guard part.gaps.count <= Self.maxGaps else { return }
        var again = Part()
        for number in part.missed { _ = again.read(number, in: folder) }
        let rest = nextNumber.load(ordering: .relaxed)..<Int32.max
        for gap in part.gaps + [rest] { _ = readListed(folder, gap, into: &again) }
        // Rights may have been lost meanwhile: the ordinary way tells of that.
        part.isBroken = again.isBroken
        guard again.links.count > 0 else { return }
        // A gap that one thread found may be among the numbers of others.
        again.links.remove(Set(part.links.table.sockets.map(\.fd) + part.links.table.rings))
        part.links.add(again.links)
    }

    private func readTable(_ thread: WorkerThread, ifNeededFor sockets: Int, into part: inout Part) {
        guard let table, sockets >= table.minSockets, !isTableTaken.exchange(true, ordering: .relaxed) else { return }
        thread.enter(.socketTable)
        part.rows = table.read()
        thread.enter(.descriptors, pid)
    }

    /// Most numbers below the highest one are taken, as a rule. So each is asked for: a list of them would cost as much
    /// again as a third of the links.
    ///
    /// - Returns: whether there are descriptors with these numbers or higher ones.
    private func read(_ folder: Int32, _ numbers: Range<Int32>, into part: inout Part) -> Bool {
        let known = part.missed.count
        for number in numbers {
            if part.read(number, in: folder) { continue }
            if part.isBroken { return false }
            part.missed.append(number)
            if part.missed.count - known == Self.maxMissing {
                return readListed(folder, number + 1..<numbers.upperBound, into: &part)
            }
        }
        return true
    }

    /// A position in the folder is a descriptor's number plus 2, for `.` and `..` (fs/proc/fd.c, proc_readfd_common). If
    /// that ever changes, the number of an entry that comes is too small, and the folder is read from its beginning.
    ///
    /// - Returns: whether there are descriptors with these numbers or higher ones.
    private func readListed(_ folder: Int32, _ numbers: Range<Int32>, into part: inout Part) -> Bool {
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
                guard count > 0 else {
                    part.gaps.append(next..<numbers.upperBound)
                    return false
                }
                var names = DirectoryEntries(UnsafeRawBufferPointer(rebasing: entries[..<count]))
                while let number = names.next(), let name = names.name {
                    if number > next { part.gaps.append(next..<number) }
                    if number >= numbers.upperBound {
                        // Nobody else walks through the gap before it: the kernel does so place by place.
                        nextNumber.max(number, ordering: .relaxed)
                        return true
                    }
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

extension LargeProcess.Part {
    /// Reads the link of a descriptor by its number.
    ///
    /// - Returns: whether there is one.
    fileprivate mutating func read(_ number: Int32, in folder: Int32) -> Bool {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 12) { digits in
            var (place, rest) = (11, number)
            digits[place] = 0
            repeat {
                place -= 1
                digits[place] = CChar(48 + rest % 10)
                rest /= 10
            } while rest > 0
            let error = links.readLink(number, in: folder, digits.baseAddress! + place)
            isBroken = isBroken || ![nil, .noSuchFileOrDirectory].contains(error)
            return error == nil
        }
    }
}

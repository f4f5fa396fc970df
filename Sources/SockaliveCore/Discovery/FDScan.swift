import CSockalive
import SystemPackage

/// The sockets that processes hold.
struct FDScan {
    struct Entry {
        let process: ProcessHandle
        let descriptors: [SocketDescriptor]
        /// Some are not in the main thread's table, the only one that pidfd_getfd(2) looks into.
        let needsThreads: Bool

        /// nil if nothing is left.
        func without(_ isKnown: (UInt64) -> Bool) -> Entry? {
            let rest = descriptors.filter { !isKnown($0.inode) }
            return rest.isEmpty ? nil : Entry(process: process, descriptors: rest, needsThreads: needsThreads)
        }
    }

    /// Processes that hold sockets.
    private(set) var entries: [Entry] = []
    /// Processes whose descriptors may not be read.
    private(set) var denied: [(process: ProcessHandle, error: Errno)] = []
    /// Processes with an io_uring that holds sockets, or may hold some: they are in no descriptor table.
    private(set) var ringOwners: [RingOwner] = []
    /// Rows of this process's own network namespace, read besides a large process: older than some of the links.
    private(set) var rows: FoundRows?
    private var hasTriedTable = false

    private static let maxThreads = 4096
    /// Nobody has so many; a process that wants to be slow to look at might.
    private static let maxTables = 64

    /// - Parameters:
    ///   - threads: how many may read a large process.
    ///   - table: of this process's own network namespace, if a large process is in it.
    ///   - stopReason: asked before each process and each of its threads.
    init(
        procfs: ProcFS, processes: [ProcessHandle], threads: Int = 1, table: LargeProcess.Table? = nil,
        stopReason: () -> StopReason?
    ) throws(StopReason) {
        for process in processes {
            if let reason = stopReason() { throw reason }
            do {
                let large = threads > 1 ? try readLarge(process.pid, procfs, threads, table, stopReason) : nil
                let tables = try Self.tables(of: process.pid, procfs, first: large, stopReason)
                if let error = tables.threadError { denied.append((process, error)) }
                if let ring = tables.ring { ringOwners.append(RingOwner(process: process, files: ring)) }
                guard !tables.sockets.isEmpty else { continue }
                entries.append(
                    Entry(process: process, descriptors: tables.sockets, needsThreads: tables.needsThreads))
            } catch let reason as StopReason {
                throw reason
            } catch let error as Errno where error != .noSuchFileOrDirectory && error != .noSuchProcess {
                // Also EMFILE, for instance: an error is never the answer that there is no socket.
                denied.append((process, error))
            } catch {
                // The process is gone.
            }
        }
    }

    /// nil where it is to be read as others are.
    private mutating func readLarge(
        _ pid: Int32, _ procfs: ProcFS, _ threads: Int, _ table: LargeProcess.Table?, _ stopReason: () -> StopReason?
    ) throws(StopReason) -> DescriptorReading? {
        WorkerProgress.enter(.descriptors, pid)
        guard LargeProcess.isLarge(pid, procfs) else { return nil }
        let namespaces = NetworkNamespaces(procfs: procfs)
        var isHere = false
        if !hasTriedTable, table != nil, let own = namespaces.own { isHere = namespaces.namespace(of: pid) == own }
        let read = try LargeProcess.read(
            pid, procfs, threads: threads, isHere ? table : nil, stopReason: stopReason)
        rows = rows ?? read?.rows
        hasTriedTable = hasTriedTable || read?.hasTriedTable == true
        return read?.links
    }

    private struct Tables {
        var sockets: [SocketDescriptor] = []
        var needsThreads = false
        /// Why the table of a thread could not be read.
        var threadError: Errno?
        /// What its io_urings hold; nil if that is nothing.
        var ring: RingOwner.Files?

        mutating func add(_ files: RingFiles) {
            guard files.isIncomplete || !files.sockets.isEmpty else { return }
            ring = RingOwner.Files(
                sockets: files.sockets.union(ring?.sockets ?? []),
                isIncomplete: files.isIncomplete || ring?.isIncomplete == true)
        }
    }

    /// As a rule all threads share one table, and the main thread's is read. One that has exited while others run
    /// on has none (its `files` is gone, kernel/exit.c); and a thread may have one of its own (unshare(2)).
    private static func tables(
        of pid: Int32, _ procfs: ProcFS, first: DescriptorReading?, _ stopReason: () -> StopReason?
    ) throws -> Tables {
        WorkerProgress.enter(.descriptors, pid)
        let main = try procfs.descriptors(in: "\(pid)/fd", first: first)
        var tables = Tables(sockets: main?.sockets ?? [])
        for ring in main?.rings ?? [] { tables.add(procfs.files(ofRing: "\(pid)/fdinfo/\(ring)")) }
        guard main == nil || procfs.threadCount(of: pid) > 1 else { return tables }
        // Threads may live for a millisecond each: those that were listed may all have ended.
        var ended: Set<Int32> = []
        let end = ContinuousClock.now + maxWalkTime
        while try !readThreads(of: pid, hasMain: main != nil, procfs, &tables, &ended, stopReason) {
            // What nobody could read is not "no".
            if .now > end {
                tables.threadError = .resourceTemporarilyUnavailable
                break
            }
        }
        return tables
    }

    private static let maxWalkTime = Duration.milliseconds(200)

    /// - Parameters:
    ///   - hasMain: the main thread's table was read.
    ///   - ended: threads that have ended, and are not asked again.
    /// - Returns: false if no table was read, and more threads have ended since they were listed.
    private static func readThreads(
        of pid: Int32, hasMain: Bool, _ procfs: ProcFS, _ tables: inout Tables, _ ended: inout Set<Int32>,
        _ stopReason: () -> StopReason?
    ) throws -> Bool {
        var known = Set(tables.sockets)
        // One thread of each table that was read.
        var owners = hasMain ? [pid] : []
        var (hasRead, reads, endedBefore) = (hasMain, 0, ended.count)
        for thread in try procfs.numbers(in: "\(pid)/task").prefix(maxThreads)
        where thread != pid && !ended.contains(thread) {
            if let reason = stopReason() { throw reason }
            WorkerProgress.enter(.threads, pid)
            // Only a 1 says that the table is known. Where kcmp(2) is forbidden, the table is read.
            if owners.contains(where: { sockalive_shares_descriptors($0, thread) == 1 }) { continue }
            WorkerProgress.enter(.descriptors, pid)
            let reading = Result { try procfs.descriptors(in: "\(pid)/task/\(thread)/fd") }
            // What it had may have been read in part.
            let hasEnded = procfs.hasEnded(thread, of: pid)
            if hasEnded { ended.insert(thread) } else { hasRead = true }
            let own: DescriptorTable
            switch reading {
            case .success(let table?): own = table
            case .success(nil): continue
            case .failure(let error):
                let error = error as? Errno ?? .ioError
                let isGone = hasEnded || error == .noSuchFileOrDirectory || error == .noSuchProcess
                if !isGone { tables.threadError = error }
                continue
            }
            for ring in own.rings { tables.add(procfs.files(ofRing: "\(pid)/task/\(thread)/fdinfo/\(ring)")) }
            let added = own.sockets.filter { known.insert($0).inserted }
            tables.sockets += added
            tables.needsThreads = tables.needsThreads || !added.isEmpty
            if !hasEnded { owners.append(thread) }
            reads += 1
            if reads == maxTables { break }
        }
        return hasRead || ended.count == endedBefore
    }
}

/// A process with an io_uring that holds sockets.
struct RingOwner {
    struct Files: Equatable {
        var sockets: Set<UInt64>
        /// It may hold others.
        var isIncomplete: Bool
    }

    let process: ProcessHandle
    let files: Files
}

extension ProcFS {
    /// What a ring holds. If the text cannot be read, it may hold anything.
    fileprivate func files(ofRing path: String) -> RingFiles { RingFiles(text(path) ?? []) }
}

extension DiscoveredSocket {
    /// Where the socket is by now. Since it was found, its descriptor may have been closed, or moved (dup2(2)).
    ///
    /// - Parameter stopReason: asked as by ``FDScan``; where there is one, nobody knows where it is.
    /// - Returns: nil if none of its processes has it any more.
    func sought(in procfs: ProcFS, _ stopReason: () -> StopReason?) -> DiscoveredSocket? {
        var socket = self
        let processes = Set(holders.map(\.pid)).sorted().compactMap { ProcessHandle(pid: $0, procfs: procfs) }
        // What cannot be read is not "no".
        guard let scan = try? FDScan(procfs: procfs, processes: processes, stopReason: stopReason), scan.denied.isEmpty
        else { return self }
        socket.holders = scan.entries.flatMap { entry in
            entry.descriptors.filter {
                $0.inode == inode && !procfs.isPathDescriptor("\(entry.process.pid)/fd/\($0.fd)")
            }.map { SocketHolder(pid: entry.process.pid, fd: $0.fd) }
        }
        return socket.holder == nil ? nil : socket
    }
}

/// A process holds up each call about its sockets, by their locks perhaps. It is to come last.
struct HeldUp: Error {
    let process: Int32
}

/// Asks each socket itself, through a duplicate that is closed at once. No table is read; the timer, which no
/// getsockopt tells, comes from sock_diag, asked for this one connection.
struct BorrowedRows {
    let tables: SocketTables
    let namespace: NetworkNamespace
    let limits: ProcessLimits

    /// Sixty times what the sockets that are borrowed take as a rule, all together.
    private static let maxTime = Duration.milliseconds(250)

    /// The rows by inode, or nil where borrowing is not possible, or takes too long: then a table has to answer.
    ///
    /// - Throws: ``HeldUp`` in place of nil, where who holds it up is to be left out.
    func rows(of entries: [FDScan.Entry]) throws(HeldUp) -> FoundRows? {
        do {
            return try askedRows(of: entries)
        } catch {
            if limits.leavesOutWhoHoldsUp { throw error }
            return nil
        }
    }

    /// The rows by inode, or nil where borrowing is not possible.
    ///
    /// Each descriptor is asked, also where another one has its inode: they may be two sockets.
    ///
    /// - Throws: ``HeldUp`` where it takes too long, or would.
    private func askedRows(of entries: [FDScan.Entry]) throws(HeldUp) -> FoundRows? {
        guard !entries.contains(where: \.needsThreads) else { return nil }
        var rows = FoundRows()
        var diag = TimerSource(tables: tables, namespace: namespace, members: entries.map(\.process.pid))
        for entry in entries {
            let start = ContinuousClock.now
            func check() throws(HeldUp) {
                if .now - start > Self.maxTime { throw HeldUp(process: entry.process.pid) }
            }
            if entry.descriptors.contains(where: { limits.untouchable.contains($0.inode) }) {
                throw HeldUp(process: entry.process.pid)
            }
            guard let owner = entry.process.descriptor else { return nil }
            var table = RepeatedTable()
            for descriptor in entry.descriptors {
                try check()
                do {
                    WorkerProgress.enter(.borrow, entry.process.pid, inode: descriptor.inode)
                    let socket = try borrow(descriptor, of: entry.process.pid, owner, &table)
                    let known = rows[descriptor.inode]
                    if let cookie = socket.cookie, known.contains(where: { $0.row.cookie == cookie }) { continue }
                    guard let row = socket.row(), tables.selection.accepts(wholly: row) else { continue }
                    if known.contains(where: { $0.row.isSameConnection(as: row) }) { continue }
                    try check()
                    rows.add(diag.completed(row, socket))
                } catch let error as HeldUp {
                    throw error
                } catch Errno.staleNFSFileHandle, Errno.badFileDescriptor, Errno.noSuchProcess {
                    // Closed since, or a number that leads to no open socket (O_PATH).
                } catch {
                    return nil
                }
            }
        }
        return rows
    }

    /// A descriptor that is another file by now is sought under other numbers of the process.
    ///
    /// - Parameter table: of the process, as it was read last after a descriptor was another file.
    private func borrow(
        _ descriptor: SocketDescriptor, of pid: Int32, _ owner: Int32, _ table: inout RepeatedTable
    ) throws -> BorrowedSocket {
        let identity = SocketIdentity(inode: descriptor.inode)
        var fd = descriptor.fd
        while true {
            do {
                return try BorrowedSocket(pidfd: owner, fd: fd, identity: identity)
            } catch let error as Errno where [.staleNFSFileHandle, .badFileDescriptor].contains(error) {
                WorkerProgress.enter(.descriptors, pid)
                guard let moved = table.number(of: descriptor.inode, besides: fd, pid, tables.procfs) else {
                    throw error
                }
                fd = moved
                WorkerProgress.enter(.borrow, pid, inode: descriptor.inode)
            }
        }
    }

    /// The descriptor table of a process, read again for descriptors that were moved (dup2(2)). Most were closed, and
    /// one reading answers that for all of them.
    private struct RepeatedTable {
        private var numbers: [UInt64: Int32] = [:]
        private var readings = 0

        private static let maxReadings = 16

        mutating func number(of inode: UInt64, besides fd: Int32, _ pid: Int32, _ procfs: ProcFS) -> Int32? {
            if readings > 0 {
                guard let known = numbers[inode] else { return nil }
                if known != fd { return known }
            }
            guard readings < Self.maxReadings else { return nil }
            readings += 1
            let sockets = (try? procfs.descriptors(in: "\(pid)/fd"))?.sockets ?? []
            numbers = Dictionary(sockets.map { ($0.inode, $0.fd) }, uniquingKeysWith: { first, _ in first })
            return numbers[inode].flatMap { $0 == fd ? nil : $0 }
        }
    }

    /// The timers of the sockets of one namespace. It is entered for the first socket, and not without need.
    private struct TimerSource: ~Copyable {
        private let tables: SocketTables
        private let namespace: NetworkNamespace
        private let members: [Int32]
        private var diag: SockDiagSocket?
        private var isMissing = false

        init(tables: SocketTables, namespace: NetworkNamespace, members: [Int32]) {
            self.tables = tables
            self.namespace = namespace
            self.members = members
        }

        /// The row with its timer. A socket that the namespace does not know is in another one, which it tells itself.
        mutating func completed(_ row: SocketRow, _ socket: borrowing BorrowedSocket) -> FoundRow {
            guard row.state.hasPeer else { return FoundRow(row: row, namespace: namespace) }
            WorkerProgress.enter(next: .socketTable)
            if diag == nil && !isMissing {
                diag = try? tables.diagSocket(in: namespace, seenBy: members)
                isMissing = diag == nil
            }
            guard !isMissing else { return FoundRow(row: row, namespace: namespace) }
            if var exact = try? diag?.row(
                family: row.family, local: row.local, remote: row.remote, interface: row.interface),
                exact.inode == row.inode, exact.state.hasPeer
            {
                // Of an MPTCP socket the table shows a subflow, whose cookie is another.
                exact.cookie = row.cookie
                return FoundRow(row: exact, namespace: namespace)
            }
            let own = socket.networkNamespace.map { NetworkNamespace.inode($0) }
            return FoundRow(row: row, namespace: own ?? namespace)
        }
    }
}

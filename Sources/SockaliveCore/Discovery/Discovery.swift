import SystemPackage

/// Finds the candidate sockets: selection in, snapshot out. It changes nothing.
///
/// Three sources give the same rows, and the cheapest that is complete is taken. A few sockets of a few
/// processes are borrowed and asked themselves, 10 µs each; many are looked up in the kernel's socket
/// table by sock_diag, whose walk takes some milliseconds on any host; where that is missing, in the text of
/// `/proc/PID/net/tcp`, which takes six times as long.
package struct Discovery {
    let procfs: ProcFS
    let source: SocketSource
    private let mayBorrow: Bool
    let limits: ProcessLimits
    let places: ProcessPlaces
    private let readsArguments: Bool
    private let sharing: Sharing

    /// As many borrowed sockets cost what a walk over the kernel's table costs. Each network namespace takes a walk of its
    /// own, over the sockets of all of them: there is one table (net/ipv4/inet_diag.c, inet_diag_dump_icsk).
    private static let maxBorrowedPerNamespace = 400

    /// - Parameters:
    ///   - method: how sockets will be reached; nothing is borrowed for another method than pidfd.
    package init(procfs: ProcFS, source: SocketSource = .auto, method: Method = .ptrace) {
        self.init(procfs: procfs, source: source, method: method, limits: ProcessLimits())
    }

    /// - Parameters:
    ///   - table: the source where borrowing is not enough, if it is to be another one.
    ///   - readsArguments: whether the arguments of the processes are wanted.
    ///   - sharing: how many threads may read a large process.
    init(
        procfs: ProcFS, source: SocketSource, table: SocketSource? = nil, method: Method, limits: ProcessLimits,
        readsArguments: Bool = false, sharing: Sharing = .standard
    ) {
        self.procfs = procfs
        self.source = table ?? source
        self.mayBorrow = source == .auto && method == .pidfd && procfs.isOwn
        self.limits = limits
        self.readsArguments = readsArguments
        self.sharing = sharing
        places = ProcessPlaces(procfs: procfs)
    }

    /// - Parameter stopReason: asked before each process, because a process can hold a million descriptors.
    /// - Throws: `Errno` where `/proc` itself cannot be read; ``SourceFailure`` where the forced source cannot;
    ///   ``HeldUp`` where a process holds up the borrowing of its sockets, and is to be left out then; the
    ///   ``StopReason`` where there is one.
    package func snapshot(
        of selection: Selection, stopReason: @escaping () -> StopReason? = { nil }
    ) throws -> Snapshot {
        let search = ProcessSearch(
            procfs: procfs, selection.alternatives, limits: limits, places: places, readsArguments: readsArguments)
        let threads = search.threads()
        let (matching, unanswered) = try search.processes()
        let processes = matching.filter { process in !threads.contains { $0.tid == process.pid } }
        let tables = SocketTables(procfs: procfs, source: source, selection: selection.sockets)
        let namespaces = NetworkNamespaces(procfs: procfs)
        let own = mayBorrow ? namespaces.own : nil
        let scan = try FDScan(
            procfs: procfs, processes: processes, threads: sharing.threads(for: .max),
            table: own.map { own in
                LargeProcess.Table(minSockets: Self.maxBorrowedPerNamespace + 1) { tables.rowsHere(own) }
            }, stopReason: stopReason)
        let groups = Group.groups(of: scan, namespaces)
        let found = try borrowedRows(groups, tables) ?? tableRows(groups, tables, scan.rows, stopReason)
        // Since Linux 5.4 cookies count through all namespaces; pidfd_getfd(2) is of 5.6.
        var collector = SocketCollector(
            procfs: procfs, search: search, areCookiesGlobal: mayBorrow, rowCount: found.all.count)
        let rows =
            groups.contains(where: \.needsWholeTable)
            ? Dictionary(grouping: found.all, by: \.namespace).mapValues { NamespaceRows($0.map(\.row)) } : [:]
        for group in groups { collect(group, found, rows[group.namespace] ?? NamespaceRows([]), into: &collector) }
        for (tid, process) in threads { collector.add(thread: tid, of: process) }
        try collector.markHeld { try held($0, stopReason) }
        return collector.snapshot(processes: processes.map(\.pid), unanswered: unanswered)
    }

    /// What was scanned of the processes of one network namespace.
    private struct Group {
        let namespace: NetworkNamespace
        var entries: [FDScan.Entry] = []
        var denied: [(process: ProcessHandle, error: Errno)] = []
        var ringOwners: [RingOwner] = []

        /// Only processes that hold sockets are asked for their namespace: that link may hang.
        ///
        /// - Returns: by the number of their first process.
        static func groups(of scan: FDScan, _ network: NetworkNamespaces) -> [Group] {
            var groups: [NetworkNamespace: Group] = [:]
            func add(_ process: ProcessHandle, _ body: (inout Group) -> Void) {
                guard let namespace = network.namespace(of: process.pid) else { return }
                body(&groups[namespace, default: Group(namespace: namespace)])
            }
            for entry in scan.entries { add(entry.process) { $0.entries.append(entry) } }
            for (process, error) in scan.denied { add(process) { $0.denied.append((process, error)) } }
            for owner in scan.ringOwners { add(owner.process) { $0.ringOwners.append(owner) } }
            return groups.values.sorted { $0.firstPID < $1.firstPID }
        }

        private var firstPID: Int32 { handles.map(\.pid).min() ?? .max }
        var handles: [ProcessHandle] { entries.map(\.process) + denied.map(\.process) + ringOwners.map(\.process) }
        var descriptorCount: Int { entries.reduce(0) { $0 + $1.descriptors.count } }
        /// Rows that no readable descriptor table holds have to be seen, too.
        var needsWholeTable: Bool { !denied.isEmpty || !ringOwners.isEmpty }
    }

    /// nil where the sockets cannot be borrowed, or are too many.
    private func borrowedRows(_ groups: [Group], _ tables: SocketTables) throws(HeldUp) -> FoundRows? {
        guard mayBorrow, !groups.contains(where: \.needsWholeTable),
            groups.allSatisfy({ $0.descriptorCount <= Self.maxBorrowedPerNamespace })
        else { return nil }
        var found = FoundRows()
        for group in groups {
            let borrowed = BorrowedRows(tables: tables, namespace: group.namespace, limits: limits)
            guard let rows = try borrowed.rows(of: group.entries) else { return nil }
            // A socket that processes of two namespaces hold is found with each of them.
            found.add(rows)
        }
        return found
    }

    /// The rows of the tables of all groups, and of other namespaces where that is not enough.
    ///
    /// - Parameter early: rows that were read before. Newer sockets are missing in them, and are sought as those of other
    ///   namespaces are.
    private func tableRows(
        _ groups: [Group], _ tables: SocketTables, _ early: FoundRows?, _ stopReason: @escaping () -> StopReason?
    ) throws -> FoundRows {
        var found = FoundRows()
        lazy var held = Set(groups.lazy.flatMap(\.entries).flatMap(\.descriptors).map(\.inode))
        for group in groups {
            if let early, !group.needsWholeTable, early.all.first?.namespace == group.namespace {
                found.add(early)
                continue
            }
            // Nobody knows which ones are held where some may not be read.
            let inodes = group.needsWholeTable ? nil : held
            found.add(try tables.rows(of: group.namespace, seenBy: group.handles, inodes: inodes))
        }
        let elsewhere = SocketsElsewhere(
            procfs: procfs, tables: tables, mayBorrow: mayBorrow, limits: limits, stopReason: stopReason)
        for group in groups {
            let missing = group.entries.compactMap { $0.without(found.contains) }
            found.add(
                try elsewhere.rows(of: missing, namespace: group.namespace, known: groups.map(\.namespace)))
        }
        return found
    }

    /// - Parameter own: all rows of the group's namespace, if they are needed.
    private func collect(
        _ group: Group, _ found: FoundRows, _ own: NamespaceRows, into collector: inout SocketCollector
    ) {
        for entry in group.entries {
            let process = MatchedProcess(handle: entry.process, namespace: group.namespace)
            // The rows may be younger than the descriptors: a process that died meanwhile is not believed.
            guard entry.descriptors.contains(where: { found.contains($0.inode) }), process.handle.isAlive(procfs)
            else { continue }
            collector.reserveCapacity(min(entry.descriptors.count, found.inodeCount))
            collector.add(process) { add in
                for descriptor in entry.descriptors {
                    if let number = found.only(descriptor.inode) {
                        add(descriptor.fd, found.all[number], number)
                        continue
                    }
                    for row in rows(of: descriptor, in: process, among: found[descriptor.inode]) {
                        add(descriptor.fd, row, nil)
                    }
                }
            }
        }
        // The links of a process that has ended give EACCES, too.
        for (handle, error) in group.denied where handle.isAlive(procfs) {
            collector.deny(MatchedProcess(handle: handle, namespace: group.namespace), error, rows: own)
        }
        for owner in group.ringOwners {
            let process = MatchedProcess(handle: owner.process, namespace: group.namespace)
            collector.add(ringOwner: process, owner.files, rows: own)
        }
    }

    /// Which of the sockets are in the descriptor table of any process that may be read.
    private func held(_ inodes: Set<UInt64>, _ stopReason: () -> StopReason?) throws -> Set<UInt64> {
        var held: Set<UInt64> = []
        for pid in try procfs.numbers(in: ".") where !limits.excluded.contains(pid) && held.count < inodes.count {
            if let reason = stopReason() { throw reason }
            WorkerProgress.enter(.descriptors, pid)
            let sockets = (try? procfs.descriptors(in: "\(pid)/fd"))?.sockets ?? []
            held.formUnion(sockets.map(\.inode).filter(inodes.contains))
        }
        return held
    }

    /// Which of the rows with its inode a descriptor stands for. As a rule there is one.
    ///
    /// Several are the subflows of an MPTCP socket; or sockets that got the same number, because an inode has 32 bits,
    /// and each namespace is asked by itself. The descriptor itself tells, where it can be borrowed. Else those of the
    /// process's own namespace count; each is sought under each descriptor, and its cookie is asked for before anything
    /// is set.
    private func rows(
        of descriptor: SocketDescriptor, in process: MatchedProcess, among rows: [FoundRow]
    ) -> [FoundRow] {
        guard rows.count > 1 else { return rows }
        WorkerProgress.enter(.borrow, process.pid, inode: descriptor.inode)
        if mayBorrow, !limits.untouchable.contains(descriptor.inode), let owner = process.handle.descriptor,
            let socket = try? BorrowedSocket(
                pidfd: owner, fd: descriptor.fd, identity: SocketIdentity(inode: descriptor.inode))
        {
            if socket.isMultipath { return rows.longestIdle.map { [$0] } ?? [] }
            if let cookie = socket.cookie { return rows.filter { $0.row.cookie == cookie } }
        }
        let own = rows.filter { $0.namespace == process.namespace }
        let likely = own.isEmpty ? rows : own
        // Before MPTCP (Linux 5.6) no two rows are one socket.
        let hasMultipath = procfs.identity("sys/net/mptcp") != nil
        return hasMultipath ? likely.longestIdle.map { [$0] } ?? [] : likely
    }
}

import SystemPackage

/// Finds the candidate sockets: selection in, snapshot out. It changes nothing.
///
/// Three sources give the same rows, and the cheapest that is complete is taken. A few sockets of a few
/// processes are borrowed and asked themselves, 10 µs each; many are looked up in the kernel's socket
/// table by sock_diag, whose walk takes some milliseconds on any host; where that is missing, in the text of
/// `/proc/PID/net/tcp`, which takes six times as long.
package struct Discovery {
    let procfs: ProcFS
    private let source: SocketSource
    private let mayBorrow: Bool
    private let limits: ProcessLimits

    /// With more processes than that the table is read first: a process without such a socket need not be walked.
    private static let maxBorrowingProcesses = 16
    /// As many borrowed sockets cost what a walk over the kernel's table costs.
    private static let maxBorrowedSockets = 400

    /// - Parameters:
    ///   - method: how sockets will be reached; nothing is borrowed for another method than pidfd.
    package init(procfs: ProcFS, source: SocketSource = .auto, method: Method = .ptrace) {
        self.init(procfs: procfs, source: source, method: method, limits: ProcessLimits())
    }

    init(procfs: ProcFS, source: SocketSource, method: Method, limits: ProcessLimits) {
        self.procfs = procfs
        self.source = source
        self.mayBorrow = source == .auto && method == .pidfd && procfs.isOwn
        self.limits = limits
    }

    /// - Parameter stopReason: asked before each process, because a process can hold a million descriptors.
    /// - Throws: `Errno` where `/proc` itself cannot be read; ``SourceFailure`` where the forced source cannot;
    ///   the ``StopReason`` where there is one.
    package func snapshot(of selection: Selection, stopReason: () -> StopReason? = { nil }) throws -> Snapshot {
        let finder = ProcessFinder(procfs: procfs, selection: selection.processes, limits: limits)
        let processes = try finder.processes()
        let namespaces = NetworkNamespaces(procfs: procfs)
        let tables = SocketTables(procfs: procfs, source: source, selection: selection.sockets)
        // Since Linux 5.4 cookies count through all namespaces; pidfd_getfd(2) is of 5.6.
        var collector = SocketCollector(finder: finder, areCookiesGlobal: mayBorrow)
        if processes.count > Self.maxBorrowingProcesses {
            let members = processes.compactMap(namespaces.member)
            for (namespace, members) in Dictionary(grouping: members, by: \.namespace) {
                let rows = try tables.rows(of: namespace, seenBy: members.map(\.handle), inodes: nil)
                if rows.isEmpty { continue }
                let handles = members.map(\.handle)
                let scan = try FDScan(procfs: procfs, processes: handles, wanted: rows, stopReason: stopReason)
                try collect(Group(namespace: namespace, scan.entries, scan.denied), tables, rows, into: &collector)
            }
        } else {
            let scan = try FDScan(procfs: procfs, processes: processes, wanted: nil, stopReason: stopReason)
            for group in Group.groups(of: scan, namespaces) { try collect(group, tables, nil, into: &collector) }
        }
        return collector.snapshot(processes: processes.map(\.pid))
    }

    /// What was scanned of the processes of one network namespace.
    private struct Group {
        let namespace: NetworkNamespace
        var entries: [FDScan.Entry]
        var denied: [(process: ProcessHandle, error: Errno)]

        init(
            namespace: NetworkNamespace, _ entries: [FDScan.Entry] = [],
            _ denied: [(process: ProcessHandle, error: Errno)] = []
        ) {
            self.namespace = namespace
            self.entries = entries
            self.denied = denied
        }

        /// Only processes that hold sockets are asked for their namespace: that link may hang.
        static func groups(of scan: FDScan, _ network: NetworkNamespaces) -> [Group] {
            var groups: [NetworkNamespace: Group] = [:]
            for entry in scan.entries {
                guard let namespace = network.namespace(of: entry.process.pid) else { continue }
                groups[namespace, default: Group(namespace: namespace)].entries.append(entry)
            }
            for (process, error) in scan.denied {
                guard let namespace = network.namespace(of: process.pid) else { continue }
                groups[namespace, default: Group(namespace: namespace)].denied.append((process, error))
            }
            return Array(groups.values)
        }

        var handles: [ProcessHandle] { entries.map(\.process) + denied.map(\.process) }
        var descriptorCount: Int { entries.reduce(0) { $0 + $1.descriptors.count } }

        /// nil: all sockets, because nobody knows which ones are held.
        var inodes: Set<UInt64>? {
            denied.isEmpty ? Set(entries.flatMap(\.descriptors).map(\.inode)) : nil
        }
    }

    /// - Parameter rows: the socket table, where it was read already.
    private func collect(
        _ group: Group, _ tables: SocketTables, _ rows: [UInt64: [SocketRow]]?, into collector: inout SocketCollector
    ) throws {
        if group.entries.isEmpty && group.denied.isEmpty { return }
        var rows = rows
        if rows == nil, mayBorrow, group.denied.isEmpty, group.descriptorCount <= Self.maxBorrowedSockets {
            rows = BorrowedRows(tables: tables, namespace: group.namespace).rows(of: group.entries)
        }
        let found = try rows ?? tables.rows(of: group.namespace, seenBy: group.handles, inodes: group.inodes)
        for entry in group.entries {
            let process = MatchedProcess(handle: entry.process, namespace: group.namespace)
            // The rows may be younger than the descriptors: a process that died meanwhile is not believed.
            let matching = entry.descriptors.flatMap { descriptor in
                self.rows(of: descriptor, in: process, among: found[descriptor.inode] ?? []).map { (descriptor.fd, $0) }
            }
            if !matching.isEmpty && process.handle.isAlive(procfs) { collector.add(process, matching) }
        }
        for (handle, error) in group.denied {
            collector.deny(MatchedProcess(handle: handle, namespace: group.namespace), error, rows: found)
        }
    }

    /// Which of the rows with its inode a descriptor stands for. As a rule there is one.
    ///
    /// Several are the subflows of an MPTCP socket; or sockets that got the same number, because an inode has 32 bits.
    /// The descriptor itself tells, where it can be borrowed. Else each socket is sought under each descriptor, and
    /// its cookie is asked for before anything is set.
    private func rows(of descriptor: SocketDescriptor, in process: MatchedProcess, among rows: [SocketRow])
        -> [SocketRow]
    {
        guard rows.count > 1 else { return rows }
        WorkerProgress.enter(.borrow, process.pid, inode: descriptor.inode)
        if mayBorrow, let owner = process.handle.descriptor,
            let socket = try? BorrowedSocket(
                pidfd: owner, fd: descriptor.fd, identity: SocketIdentity(inode: descriptor.inode))
        {
            if socket.isMultipath { return rows.longestIdle.map { [$0] } ?? [] }
            if let cookie = socket.cookie { return rows.filter { $0.cookie == cookie } }
        }
        // Before MPTCP (Linux 5.6) no two rows are one socket.
        let hasMultipath = procfs.identity("sys/net/mptcp") != nil
        return hasMultipath ? rows.longestIdle.map { [$0] } ?? [] : rows
    }
}

/// One TCP socket of a matching process: however many descriptors and processes hold it, one.
package struct DiscoveredSocket: Equatable, Sendable {
    /// The first process found to hold it.
    package let process: ProcessIdentity
    /// By process, then by number. Empty if the process's descriptors may not be read.
    package let holders: [SocketHolder]
    package let row: SocketRow

    package var inode: UInt64 { row.inode }
    package var cookie: UInt64? { row.cookie }

    /// Other sockets of the same table have the same inode: only the cookie, or its two ends, tell it apart.
    var sharesInode = false

    var identity: SocketIdentity { SocketIdentity(inode: inode, cookie: cookie, sharesInode: sharesInode) }
}

/// What discovery found, and what stood in its way.
package struct Snapshot: Sendable {
    package let sockets: [DiscoveredSocket]
    /// The PID of every matching process, whether or not it has a matching socket.
    package let processes: [Int32]
    /// Matching processes whose descriptors may not be read, and the error.
    package let denied: [Int32: Errno]
    /// The processes with a matching socket, held: their PIDs cannot be recycled unnoticed.
    let handles: [Int32: ProcessHandle]
}

/// Why nothing was found, as far as `/proc` can tell.
package struct AbsenceReason: Equatable, Sendable {
    /// Processes that match, but have no such socket.
    package let idleProcesses: [ProcessIdentity]
    /// Processes that do have such a socket, but do not match.
    package let otherOwners: [ProcessIdentity]

    package static let unknown = AbsenceReason(idleProcesses: [], otherOwners: [])
}

extension Discovery {
    /// Looks once more, for the same sockets in every process. Only worth its cost when a person
    /// waits for the explanation. What it finds until there is a reason to stop is true, and may not be all.
    package func absenceReason(
        _ snapshot: Snapshot, _ selection: Selection, stopReason: () -> StopReason? = { nil }
    ) -> AbsenceReason {
        AbsenceReason(
            idleProcesses: processIdentities(snapshot.processes),
            otherOwners: selection.sockets.ports == nil ? [] : owners(of: selection.sockets, stopReason))
    }

    private func processIdentities(_ pids: [Int32]) -> [ProcessIdentity] {
        let selection = ProcessSelection(pids: Set(pids))
        let finder = ProcessFinder(procfs: procfs, selection: selection, limits: limits)
        return ((try? finder.processes()) ?? []).compactMap(NetworkNamespaces(procfs: procfs).member).compactMap(
            finder.identity)
    }

    private func owners(of sockets: SocketSelection, _ stopReason: () -> StopReason?) -> [ProcessIdentity] {
        let everybody = Selection(processes: ProcessSelection(anyProcess: true), sockets: sockets)
        var seen: Set<Int32> = []
        return ((try? snapshot(of: everybody, stopReason: stopReason))?.sockets ?? []).filter { !$0.holders.isEmpty }
            .map(\.process).filter { seen.insert($0.pid).inserted }
    }
}

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
    package func snapshot(
        of selection: Selection, stopReason: @escaping () -> StopReason? = { nil }
    ) throws -> Snapshot {
        let finder = ProcessFinder(procfs: procfs, selection: selection.processes, limits: limits)
        let threads = finder.threads()
        let processes = try finder.processes().filter { process in !threads.contains { $0.tid == process.pid } }
        let tables = SocketTables(procfs: procfs, source: source, selection: selection.sockets)
        let scan = try FDScan(procfs: procfs, processes: processes, stopReason: stopReason)
        let groups = Group.groups(of: scan, NetworkNamespaces(procfs: procfs))
        // Since Linux 5.4 cookies count through all namespaces; pidfd_getfd(2) is of 5.6.
        var collector = SocketCollector(procfs: procfs, finder: finder, areCookiesGlobal: mayBorrow)
        let found = try borrowedRows(groups, tables) ?? tableRows(groups, tables, stopReason)
        for group in groups { collect(group, found, into: &collector) }
        for (tid, process) in threads { collector.add(thread: tid, of: process) }
        return collector.snapshot(processes: processes.map(\.pid))
    }

    /// What was scanned of the processes of one network namespace.
    private struct Group {
        let namespace: NetworkNamespace
        var entries: [FDScan.Entry] = []
        var denied: [(process: ProcessHandle, error: Errno)] = []
        var ringOwners: [ProcessHandle] = []

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
            for process in scan.ringOwners { add(process) { $0.ringOwners.append(process) } }
            return groups.values.sorted { $0.firstPID < $1.firstPID }
        }

        private var firstPID: Int32 { handles.map(\.pid).min() ?? .max }
        var handles: [ProcessHandle] { entries.map(\.process) + denied.map(\.process) + ringOwners }
        var descriptorCount: Int { entries.reduce(0) { $0 + $1.descriptors.count } }
        /// Rows that no readable descriptor table holds have to be seen, too.
        var needsWholeTable: Bool { !denied.isEmpty || !ringOwners.isEmpty }
    }

    /// nil where the sockets cannot be borrowed, or are too many.
    private func borrowedRows(_ groups: [Group], _ tables: SocketTables) -> [UInt64: [FoundRow]]? {
        guard mayBorrow, !groups.contains(where: \.needsWholeTable),
            groups.reduce(0, { $0 + $1.descriptorCount }) <= Self.maxBorrowedSockets
        else { return nil }
        var found: [UInt64: [FoundRow]] = [:]
        for group in groups {
            guard let rows = BorrowedRows(tables: tables, namespace: group.namespace).rows(of: group.entries) else {
                return nil
            }
            found.merge(rows, uniquingKeysWith: +)
        }
        return found
    }

    /// The rows of the tables of all groups, and of other namespaces where that is not enough.
    private func tableRows(
        _ groups: [Group], _ tables: SocketTables, _ stopReason: @escaping () -> StopReason?
    ) throws -> [UInt64: [FoundRow]] {
        var found: [UInt64: [FoundRow]] = [:]
        for group in groups {
            // Nobody knows which ones are held where some may not be read.
            let inodes =
                group.needsWholeTable ? nil : Set(groups.flatMap(\.entries).flatMap(\.descriptors).map(\.inode))
            let rows = try tables.rows(of: group.namespace, seenBy: group.handles, inodes: inodes)
            found.merge(rows.tagged(group.namespace), uniquingKeysWith: +)
        }
        let elsewhere = SocketsElsewhere(
            procfs: procfs, tables: tables, mayBorrow: mayBorrow, excluded: limits.excluded, stopReason: stopReason)
        for group in groups {
            let missing = group.entries.compactMap { $0.without { found[$0] != nil } }
            let rows = try elsewhere.rows(
                of: missing, namespace: group.namespace, known: groups.map(\.namespace))
            found.merge(rows, uniquingKeysWith: +)
        }
        return found
    }

    private func collect(
        _ group: Group, _ found: [UInt64: [FoundRow]], into collector: inout SocketCollector
    ) {
        for entry in group.entries {
            let process = MatchedProcess(handle: entry.process, namespace: group.namespace)
            // The rows may be younger than the descriptors: a process that died meanwhile is not believed.
            let matching = entry.descriptors.flatMap { descriptor in
                rows(of: descriptor, in: process, among: found[descriptor.inode] ?? []).map { (descriptor.fd, $0) }
            }
            if !matching.isEmpty && process.handle.isAlive(procfs) { collector.add(process, matching) }
        }
        let own = group.needsWholeTable ? found.values.joined().filter { $0.namespace == group.namespace } : []
        for (handle, error) in group.denied {
            collector.deny(MatchedProcess(handle: handle, namespace: group.namespace), error, rows: own.map(\.row))
        }
        for handle in group.ringOwners {
            collector.add(ringOwner: MatchedProcess(handle: handle, namespace: group.namespace), rows: own.map(\.row))
        }
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
        if mayBorrow, let owner = process.handle.descriptor,
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

/// One TCP socket of a matching process: however many descriptors and processes hold it, one.
package struct DiscoveredSocket: Equatable, Sendable {
    /// The first process found to hold it.
    package let process: ProcessIdentity
    /// By process, then by number. Empty if the process's descriptors may not be read.
    package internal(set) var holders: [SocketHolder]
    package let row: SocketRow

    package var inode: UInt64 { row.inode }
    package var cookie: UInt64? { row.cookie }

    /// Other sockets of the same table have the same inode: only the cookie, or its two ends, tell it apart.
    var sharesInode = false
    /// The inode of the network namespace that it is in; nil where that is not known. A process may hold sockets of
    /// several.
    package var networkNamespace: UInt64?
    /// Whether it is a candidate depends on its interface, which is not known.
    var isUndecided = false

    var identity: SocketIdentity { SocketIdentity(inode: inode, cookie: cookie, sharesInode: sharesInode) }
}

/// What discovery found, and what stood in its way.
package struct Snapshot: Sendable {
    package let sockets: [DiscoveredSocket]
    /// The PID of every matching process, whether or not it has a matching socket.
    package let processes: [Int32]
    /// Matching processes of which nobody knows whether they have such sockets.
    let unanswered: [UnansweredProcess]
    /// The processes with a matching socket, held: their PIDs cannot be recycled unnoticed.
    let handles: [Int32: ProcessHandle]
}

/// A matching process of which nobody knows whether it has such sockets.
struct UnansweredProcess: Sendable {
    enum Reason: Sendable {
        /// Its descriptors may not be read, or not for want of descriptors of our own.
        case descriptors(Errno)
        /// There is such a socket of its user in no descriptor table, and it has an io_uring.
        case ring(SocketRow)
        /// The number is that of a thread of this process.
        case thread(of: Int32)
    }

    let pid: Int32
    let name: UntrustedText?
    let reason: Reason
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
        _ snapshot: Snapshot, _ selection: Selection, stopReason: @escaping () -> StopReason? = { nil }
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

    private func owners(of sockets: SocketSelection, _ stopReason: @escaping () -> StopReason?) -> [ProcessIdentity] {
        let everybody = Selection(processes: ProcessSelection(anyProcess: true), sockets: sockets)
        var seen: Set<Int32> = []
        return ((try? snapshot(of: everybody, stopReason: stopReason))?.sockets ?? []).filter { !$0.holders.isEmpty }
            .map(\.process).filter { seen.insert($0.pid).inserted }
    }
}

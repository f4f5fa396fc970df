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

    /// With more processes than that the table is read first: who has no socket need not be walked.
    private static let maxBorrowingProcesses = 16
    /// As many borrowed sockets cost what a walk over the kernel's table costs.
    private static let maxBorrowedSockets = 400

    /// - Parameter method: how sockets will be reached; nothing is borrowed for another method than pidfd.
    package init(procfs: ProcFS, source: SocketSource = .auto, method: Method = .ptrace) {
        self.procfs = procfs
        self.source = source
        self.mayBorrow = source == .auto && method == .pidfd && procfs.isOwn
    }

    /// - Parameter stopReason: asked before each process: whoever likes can hold a million descriptors.
    /// - Throws: `Errno` where `/proc` itself cannot be read; ``SourceFailure`` where the forced source cannot;
    ///   the ``StopReason`` where there is one.
    package func snapshot(of selection: Selection, stopReason: () -> StopReason? = { nil }) throws -> Snapshot {
        let finder = ProcessFinder(procfs: procfs, selection: selection.processes)
        let processes = try finder.processes()
        let tables = SocketTables(procfs: procfs, source: source, selection: selection.sockets)
        // Since Linux 5.4 cookies count through all namespaces; pidfd_getfd(2) is of 5.6.
        var collector = SocketCollector(finder: finder, areCookiesGlobal: mayBorrow)
        for (namespace, members) in Dictionary(grouping: processes, by: \.namespace) {
            try collect(members, of: namespace, tables, stopReason, into: &collector)
        }
        return collector.snapshot(processes: processes.map(\.pid))
    }

    private func collect(
        _ members: [MatchedProcess], of namespace: NetworkNamespace, _ tables: SocketTables,
        _ stopReason: () -> StopReason?, into collector: inout SocketCollector
    ) throws {
        var rows: [UInt64: [SocketRow]]?
        if members.count > Self.maxBorrowingProcesses {
            rows = try tables.rows(of: namespace, seenBy: members, inodes: nil)
            if rows?.isEmpty == true { return }
        }
        let scan = try FDScan(procfs: procfs, members: members, wanted: rows, stopReason: stopReason)
        if scan.inodes.isEmpty && scan.denied.isEmpty { return }
        if rows == nil, mayBorrow, scan.denied.isEmpty, scan.count <= Self.maxBorrowedSockets {
            rows = BorrowedRows(tables: tables, namespace: namespace).rows(of: scan)
        }
        let found: [UInt64: [SocketRow]]
        if let rows {
            found = rows
        } else {
            found = try tables.rows(of: namespace, seenBy: members, inodes: scan.denied.isEmpty ? scan.inodes : nil)
        }
        for (process, descriptors) in scan.descriptors {
            // The rows may be younger than the descriptors: who died meanwhile is not believed.
            let matching = descriptors.flatMap { descriptor in
                self.rows(of: descriptor, in: process, among: found[descriptor.inode] ?? []).map { (descriptor.fd, $0) }
            }
            if !matching.isEmpty && process.handle.isAlive(procfs) { collector.add(process, matching) }
        }
        for (process, error) in scan.denied { collector.deny(process, error, rows: found) }
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
    /// waits for the explanation.
    package func absenceReason(_ snapshot: Snapshot, _ selection: Selection) -> AbsenceReason {
        AbsenceReason(
            idleProcesses: processIdentities(snapshot.processes),
            otherOwners: selection.sockets.ports == nil ? [] : owners(of: selection.sockets))
    }

    private func processIdentities(_ pids: [Int32]) -> [ProcessIdentity] {
        let finder = ProcessFinder(procfs: procfs, selection: ProcessSelection(pids: Set(pids)))
        return ((try? finder.processes()) ?? []).compactMap(finder.identity)
    }

    private func owners(of sockets: SocketSelection) -> [ProcessIdentity] {
        let everybody = Selection(processes: ProcessSelection(anyProcess: true), sockets: sockets)
        var seen: Set<Int32> = []
        return ((try? snapshot(of: everybody))?.sockets ?? []).filter { !$0.holders.isEmpty }
            .map(\.process).filter { seen.insert($0.pid).inserted }
    }
}

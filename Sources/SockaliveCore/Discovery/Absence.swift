import Glibc

/// Why nothing was found, as far as `/proc` can tell.
package struct AbsenceReason: Equatable, Sendable {
    /// Such a connection that is in no descriptor table of any process that may be read.
    package struct Unheld: Equatable, Sendable {
        package let row: SocketRow
        /// The process whose io_uring has it. nil if it is on its way between two processes (SCM_RIGHTS), the kernel's
        /// own, or of a process that may not be read.
        package let ringOwner: Process?
    }

    package struct Process: Equatable, Sendable {
        package let pid: Int32
        /// nil if it may not be read.
        package let name: UntrustedText?
    }

    /// Processes that match, but have no such socket.
    package let idleProcesses: [ProcessIdentity]
    /// Processes that do have such a socket, but do not match.
    package let otherOwners: [ProcessIdentity]
    package let unheld: [Unheld]

    package static let unknown = AbsenceReason(idleProcesses: [], otherOwners: [], unheld: [])
}

extension Discovery {
    /// Looks once more, for the same sockets in every process. Only worth its cost when a person
    /// waits for the explanation. What it finds until there is a reason to stop is true, and may not be all.
    ///
    /// - Parameter processes: those that match.
    package func absenceReason(
        _ processes: [Int32], _ selection: Selection, stopReason: @escaping () -> StopReason? = { nil }
    ) -> AbsenceReason {
        let idle = processIdentities(processes)
        guard selection.sockets.ports != nil, let all = everybody(selection.sockets, stopReason) else {
            return AbsenceReason(idleProcesses: idle, otherOwners: [], unheld: [])
        }
        var seen: Set<Int32> = []
        let owners = all.sockets.filter { $0.holder != nil }.map(\.process).filter { seen.insert($0.pid).inserted }
        return AbsenceReason(
            idleProcesses: idle, otherOwners: owners,
            unheld: unheld(all, seenBy: processes, selection.sockets))
    }

    private func processIdentities(_ pids: [Int32]) -> [ProcessIdentity] {
        let search = ProcessSearch(procfs: procfs, [ProcessSelection(pids: Set(pids))], limits: limits, places: places)
        return ((try? search.processes().found) ?? []).compactMap(NetworkNamespaces(procfs: procfs).member).compactMap(
            search.identity)
    }

    private func everybody(_ sockets: SocketSelection, _ stopReason: @escaping () -> StopReason?) -> Snapshot? {
        let everybody = Selection(processes: ProcessSelection(anyProcess: true), sockets: sockets)
        return try? self.snapshot(of: everybody, stopReason: stopReason)
    }

    /// The rows that no process holds, in the namespaces of this process and of those that match.
    ///
    /// - Parameter all: the sockets of all processes.
    private func unheld(
        _ all: Snapshot, seenBy pids: [Int32], _ sockets: SocketSelection
    ) -> [AbsenceReason.Unheld] {
        var unheld: [AbsenceReason.Unheld] = []
        for case .ring(let row, isCertain: true) in all.unanswered.map(\.reason) {
            let owner = all.unanswered.first { if case .ring(row, _) = $0.reason { true } else { false } }
            unheld.append(
                AbsenceReason.Unheld(
                    row: row, ringOwner: owner.map { AbsenceReason.Process(pid: $0.pid, name: $0.name) }))
        }
        let known = Set(all.sockets.filter { $0.holder != nil }.map(\.inode) + unheld.map(\.row.inode))
        let namespaces = NetworkNamespaces(procfs: procfs)
        let tables = SocketTables(procfs: procfs, source: source, selection: sockets)
        var seen: Set<NetworkNamespace> = []
        for pid in pids + [getpid()] {
            guard let namespace = namespaces.namespace(of: pid), seen.insert(namespace).inserted,
                let process = ProcessHandle(pid: pid, procfs: procfs),
                let rows = try? tables.rows(of: namespace, seenBy: [process], inodes: nil)
            else { continue }
            unheld += rows.all.map(\.row).filter { !known.contains($0.inode) }.sorted { $0.inode < $1.inode }
                .map { AbsenceReason.Unheld(row: $0, ringOwner: nil) }
        }
        return unheld
    }
}

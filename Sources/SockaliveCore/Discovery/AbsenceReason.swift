/// Why nothing was found, as far as `/proc` can tell.
public struct AbsenceReason: Equatable, Sendable {
    /// Processes that match, but have no such socket.
    public let idleProcesses: [ProcessIdentity]
    /// Processes that do have such a socket, but do not match.
    public let otherOwners: [ProcessIdentity]

    public static let unknown = AbsenceReason(idleProcesses: [], otherOwners: [])
}

extension Discovery {
    /// Looks once more, for the same sockets in every process. Only worth its cost when a person
    /// waits for the explanation.
    public func absenceReason(_ snapshot: Snapshot, _ selection: Selection) -> AbsenceReason {
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

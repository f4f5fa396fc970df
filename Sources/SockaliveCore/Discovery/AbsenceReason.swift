/// Why nothing was found, as far as `/proc` can tell.
public struct AbsenceReason: Equatable, Sendable {
    /// Processes that match, but have no such socket.
    public let idleProcesses: [ProcessInfo]
    /// Processes that do have such a socket, but do not match.
    public let otherOwners: [ProcessInfo]
}

extension Discovery {
    /// Looks once more, for the same sockets in every process. Only worth its cost when a person
    /// waits for the explanation.
    public func absenceReason(_ snapshot: Snapshot, _ selection: Selection) -> AbsenceReason {
        var everybody = selection
        everybody.processes = ProcessSelection(anyProcess: true)
        var seen: Set<Int32> = []
        let owners = ((try? self.snapshot(of: everybody))?.sockets ?? []).filter { !$0.holders.isEmpty }
            .map(\.process).filter { seen.insert($0.pid).inserted }
        return AbsenceReason(
            idleProcesses: snapshot.processes,
            otherOwners: selection.sockets.ports == nil ? [] : owners)
    }
}

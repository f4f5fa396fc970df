import SockaliveCore

/// The guards for people, one line each.
struct GuardTable {
    let text: String

    init(_ guards: [(GuardState, [Neighbour]?)]) {
        guard !guards.isEmpty else {
            text = ""
            return
        }
        let head = ["PLACE", "PORT", "KEEPALIVE", "TREATED", "KEPT", "STATE"]
        let rows = ([head] + guards.map(Self.cells)).map { $0.map { TextTable.Cell($0) } }
        text = TextTable.text(rows, TextTable.widths(rows))
    }

    private static func cells(_ state: GuardState, _ neighbours: [Neighbour]?) -> [String] {
        let wanted = state.settings?.request.wanted
        let overrides = state.settings?.overrides == true ? ", in any case" : ""
        return [
            state.title, state.settings?.portText ?? "?",
            wanted.map { "\($0.idle)/\($0.interval)/\($0.count)\(overrides)" } ?? "?",
            state.counts.map { "\($0.treated)" } ?? "?", state.counts.map { "\($0.kept)" } ?? "?",
            stateText(state, neighbours ?? []),
        ]
    }

    private static func stateText(_ state: GuardState, _ neighbours: [Neighbour]) -> String {
        guard state.isAttached else { return "over: the cgroup is gone; guard it again" }
        var parts = ["guarded"]
        if let failed = state.counts?.failed, failed > 0 { parts.append("\(failed) refused by the kernel") }
        parts += neighbours.map { "beside \($0.description)" }
        return parts.joined(separator: ", ")
    }
}

extension GuardSettings {
    /// `5633`, `5633,8080`, `any`.
    var portText: String {
        ports.map { $0.sorted().map(String.init).joined(separator: ",") } ?? "any"
    }
}

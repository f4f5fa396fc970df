import SockaliveCore

/// The table for people: one line a socket, columns as wide as their widest entry.
struct SocketTable {
    let style: TextStyle
    /// A column that would make the lines longer is left out.
    var maxWidth = Int.max

    func render(_ results: [SocketResult]) -> String {
        let isProbed = results.contains { $0.probe != nil }
        let names = ["PID", "PROCESS", "FD", "LOCAL", "REMOTE", "IDLE", "KEEPALIVE"]
        let header = (names + (isProbed ? ["ANSWER", "VERDICT"] : ["VERDICT"])).map { Cell($0) }
        var rows = [header] + results.map { cells($0) + verdict($0, isProbed) }
        var widths = TextTable.widths(rows)
        if let places = places(results), let width = places.map(\.width).max(),
            widths.reduce(width + 2, { $0 + $1 + 2 }) - 2 <= maxWidth
        {
            for index in rows.indices { rows[index].insert(places[index], at: Self.placeColumn) }
            widths.insert(width, at: Self.placeColumn)
        }
        return TextTable.text(rows, widths)
    }

    private static let placeColumn = 2
    private static let maxPlace = 24

    /// Where the processes run, below a heading; nil where that is neither in a container nor in a unit.
    private func places(_ results: [SocketResult]) -> [Cell]? {
        let places = results.map(\.socket.process.place)
        let containers = places.map { $0?.containerLabel?.escaped }
        let isContainer = containers.contains { $0 != nil }
        let labels = isContainer ? containers : places.map { $0?.unit }
        guard labels.contains(where: { $0 != nil }) else { return nil }
        return [Cell(isContainer ? "CONTAINER" : "UNIT")]
            + labels.map { label in
                guard let label else { return Cell("-") }
                return Cell(label.count > Self.maxPlace ? label.prefix(Self.maxPlace - 1) + "…" : label)
            }
    }

    private typealias Cell = TextTable.Cell

    private func cells(_ result: SocketResult) -> [Cell] {
        let socket = result.socket
        return [
            Cell("\(socket.process.pid)"),
            Cell(socket.process.name.escaped),
            Cell(socket.holder.map { "\($0.fd)" } ?? "?"),
            Cell(socket.row.localDescription),
            Cell(peer(socket.row)),
            idle(result),
            Cell(keepalive(result)),
        ]
    }

    /// With the state where it is not established.
    private func peer(_ row: SocketRow) -> String {
        guard row.state.hasPeer else { return "(listening)" }
        return row.state.isHalfClosed ? "\(row.remoteDescription) (\(row.state.rawValue))" : row.remoteDescription
    }

    /// Beside an answer the bare verdict: the line is long enough.
    private func verdict(_ result: SocketResult, _ isProbed: Bool) -> [Cell] {
        let verdict = result.verdict
        let text = VerdictText(result: result)
        let words = isProbed ? text.word : text.text
        let cell = Cell(words, shown: style.paint(words, verdict.color))
        return isProbed ? [Cell(AnswerText(result).cell ?? "-"), cell] : [cell]
    }

    /// The gauge is full at the firewall's timeout; then the time in words.
    private func idle(_ result: SocketResult) -> Cell {
        guard let seconds = result.idleSeconds else { return Cell("-") }
        let filled = Int(seconds * Double(Gauge.width) / Double(result.request.firewallTimeout.count))
        let gauge = Self.gauges[min(Gauge.width, filled)]
        return Cell(gauge: gauge, width: Gauge.width + 1, Seconds(Int(seconds)).description)
    }

    private static let gauges = Gauge.bars.map { $0 + " " }

    private func keepalive(_ result: SocketResult) -> String {
        let byTimer = result.keepaliveByTimer?.brief
        guard let planned = result.planned else { return byTimer ?? "?" }
        guard let before = result.before else { return "\(byTimer ?? "?") → \(planned.brief)" }
        return before.brief == planned.brief ? before.brief : "\(before.brief) → \(planned.brief)"
    }
}

extension Verdict? {
    fileprivate var color: TextStyle.Color {
        switch self {
        case .protected: .green
        case .atRisk: .yellow
        case .unprotected, .expired: .red
        case nil: .dim
        }
    }
}

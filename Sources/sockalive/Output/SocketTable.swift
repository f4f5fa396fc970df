import SockaliveCore

/// The table for people: one line a socket, columns as wide as their widest entry.
struct SocketTable {
    let firewallTimeout: Seconds
    let style: Style

    func render(_ results: [SocketResult]) -> String {
        let isProbed = results.contains { $0.probe != nil }
        let names = ["PID", "PROCESS", "FD", "LOCAL", "REMOTE", "IDLE", "KEEPALIVE"]
        let header = (names + (isProbed ? ["ANSWER", "VERDICT"] : ["VERDICT"])).map { Cell($0) }
        let rows = [header] + results.map { cells($0) + verdict($0, isProbed) }
        let widths = header.indices.map { column in rows.map { $0[column].width }.max() ?? 0 }
        return rows.map { row in
            let padded = zip(row, widths).dropLast().map { $0.shown + String(repeating: " ", count: $1 - $0.width + 2) }
            return padded.joined() + row.last!.shown + "\n"
        }.joined()
    }

    private struct Cell {
        let shown: String
        let width: Int

        init(_ plain: String, shown: String? = nil) {
            self.shown = shown ?? plain
            width = plain.count
        }
    }

    private func cells(_ result: SocketResult) -> [Cell] {
        let socket = result.socket
        return [
            Cell("\(socket.process.pid)"),
            Cell(socket.process.name.escaped),
            Cell(socket.holders.first.map { "\($0.fd)" } ?? "?"),
            Cell("\(socket.row.local)"),
            Cell(socket.row.state == .listen ? "(listening)" : "\(socket.row.remote)"),
            idle(result.idleSeconds),
            Cell(keepalive(result)),
        ]
    }

    /// Beside an answer the bare verdict: the line is long enough.
    private func verdict(_ result: SocketResult, _ isProbed: Bool) -> [Cell] {
        let verdict = result.verdict(against: firewallTimeout)
        let text = VerdictText(result: result, firewallTimeout: firewallTimeout)
        let words = isProbed ? text.word : text.text
        let cell = Cell(words, shown: style.colored(words, verdict))
        return isProbed ? [Cell(AnswerText(result).cell ?? "-"), cell] : [cell]
    }

    /// Ten cells for the firewall's whole timeout, then the time in words.
    private func idle(_ seconds: Double?) -> Cell {
        guard let seconds else { return Cell("-") }
        let filled = min(10, Int(seconds * 10 / Double(firewallTimeout.count)))
        let gauge = String(repeating: "█", count: filled) + String(repeating: "░", count: 10 - filled)
        return Cell("\(gauge) \(Seconds(Int(seconds)))")
    }

    private func keepalive(_ result: SocketResult) -> String {
        guard let before = result.before, let planned = result.planned else { return "?" }
        return text(before) == text(planned) ? text(before) : "\(text(before)) → \(text(planned))"
    }

    private func text(_ settings: KeepaliveSettings) -> String {
        settings.enabled ? "\(settings.idle)/\(settings.interval)/\(settings.count)" : "off"
    }
}

/// Colour, where there is a terminal to show it and nobody asked for none (no-color.org).
struct Style {
    let isColored: Bool

    func colored(_ text: String, _ verdict: Verdict?) -> String {
        guard isColored else { return text }
        let code =
            switch verdict {
            case .protected: "32"
            case .atRisk: "33"
            case .unprotected, .expired: "31"
            case nil: "2"
            }
        return "\u{1b}[\(code)m\(text)\u{1b}[0m"
    }
}

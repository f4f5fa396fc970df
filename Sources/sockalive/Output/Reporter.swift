import Glibc
import SockaliveCore

/// Says what a run did, in the form that was asked for.
struct Reporter {
    let output: OutputOptions

    /// The answer, on standard output. False if it could not be written.
    func answer(_ results: [SocketResult], command: String, dryRun: Bool, request: KeepaliveRequest) -> Bool {
        if output.json {
            let report = RunReport(command: command, dryRun: dryRun, request: request, results: results)
            guard let text = try? JSONOutput.text(report) else { return false }
            return StandardStreams.output(text)
        }
        if output.quiet || results.isEmpty { return true }
        let style = Style(isColored: StandardStreams.outputIsTerminal && getenv("NO_COLOR") == nil)
        return StandardStreams.output(
            SocketTable(firewallTimeout: request.firewallTimeout, style: style).render(results))
    }

    /// One line for each distinct failure, with the connections it hit.
    func failures(_ results: [SocketResult]) {
        var order: [String] = []
        var sockets: [String: [DiscoveredSocket]] = [:]
        for result in results {
            guard let line = result.failure?.line else { continue }
            if sockets[line] == nil { order.append(line) }
            sockets[line, default: []].append(result.socket)
        }
        for line in order {
            let hit = sockets[line] ?? []
            let more = hit.count > 1 ? " and \(hit.count - 1) more" : ""
            StandardStreams.error("\(hit.first.map(Self.name) ?? "")\(more): \(line)")
        }
    }

    func message(_ line: @autoclosure () -> String) {
        if !output.quiet { StandardStreams.error(line()) }
    }

    func step(_ line: @autoclosure () -> String) {
        if output.verbose { StandardStreams.error(line()) }
    }

    /// One socket's outcome, for `--verbose`.
    func step(_ result: SocketResult) {
        let way = result.method.map { " by \($0.rawValue), target stopped for \(result.pausedMicroseconds) µs" } ?? ""
        step("\(Self.name(result.socket)): \(result.action.rawValue)\(way)")
    }

    static func name(_ socket: DiscoveredSocket) -> String {
        let fd = socket.holders.first.map { " fd \($0.fd)" } ?? ""
        let peer = socket.row.state == .listen ? "listening" : "→ \(socket.row.remote)"
        return "\(socket.process.name.escaped) (PID \(socket.process.pid))\(fd) \(socket.row.local) \(peer)"
    }
}

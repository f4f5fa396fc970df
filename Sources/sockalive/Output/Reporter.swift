import SockaliveCore

/// Says what a run did, in the form that was asked for.
struct Reporter {
    let output: OutputOptions

    /// The answer, on standard output. False if it could not be written.
    func answer(_ results: [SocketResult], _ report: @autoclosure () -> RunReport) -> Bool {
        if output.json {
            return report().write(to: StandardStreams.output)
        }
        if output.quiet || results.isEmpty { return true }
        let table = SocketTable(style: StandardStreams.outputStyle, maxWidth: StandardStreams.outputWidth)
        return StandardStreams.output(table.render(results))
    }

    /// One line for each distinct failure, with the connections it hit; the rest are counted, for cron mails every line.
    func failures(_ results: [SocketResult]) {
        let rest = distinctLines(results) { results[$0].failure?.line }
        if rest > 0 { StandardStreams.error("and \(rest) more failed: --json tells of each") }
    }

    /// One line for each distinct user timeout that makes a lost probe the end of a connection. What was given
    /// explicitly was warned about when the run began.
    func userTimeouts(_ results: [SocketResult]) {
        guard !output.quiet else { return }
        let rest = distinctLines(results) { index in
            guard results[index].request.wanted.userTimeout == nil else { return nil }
            return results[index].userTimeoutRisk.map { "at risk: \($0.line)" }
        }
        if rest > 0 { StandardStreams.error("and \(rest) more are at risk by their TCP_USER_TIMEOUT") }
    }

    /// - Parameter line: by the number of the result: a loop over the results themselves would copy each.
    /// - Returns: the number of sockets whose lines were too many.
    private func distinctLines(_ results: [SocketResult], _ line: (Int) -> String?) -> Int {
        var order: [String] = []
        var sockets: [String: [DiscoveredSocket]] = [:]
        for index in results.indices {
            guard let line = line(index) else { continue }
            if sockets[line] == nil { order.append(line) }
            sockets[line, default: []].append(results[index].socket)
        }
        for line in order.prefix(Self.maxNamed) {
            let hit = sockets[line] ?? []
            let more = hit.count > 1 ? " and \(hit.count - 1) more" : ""
            StandardStreams.error("\(hit.first.map(Self.name) ?? "")\(more): \(line)")
        }
        return order.dropFirst(Self.maxNamed).reduce(0) { $0 + (sockets[$1]?.count ?? 0) }
    }

    /// One line for each matching process that could not be looked at.
    func failures(_ processes: [ProcessFailure]) {
        for process in processes.prefix(Self.maxNamed) {
            StandardStreams.error(Self.line(process))
        }
        guard processes.count > Self.maxNamed else { return }
        StandardStreams.error("and \(processes.count - Self.maxNamed) more processes failed: --json tells of each")
    }

    /// A line for each connection whose peer did not answer; whoever runs a backup wants to know which.
    func silence(_ results: [SocketResult]) {
        // The first question copies nothing.
        let silent = results.indices.filter { results[$0].probe != nil && results[$0].isSilent }
        for index in silent.prefix(Self.maxNamed) {
            StandardStreams.error(
                "\(Self.name(results[index].socket)): silent: the peer answers neither keepalive probes nor data; "
                    + "the firewall or the peer has forgotten this connection, or the path is down")
        }
        guard silent.count > Self.maxNamed else { return }
        StandardStreams.error("and \(silent.count - Self.maxNamed) more are silent")
    }

    static func line(_ process: ProcessFailure) -> String {
        (process.name.map { "\($0.escaped) (PID \(process.pid)): " } ?? "") + process.failure.line
    }

    private static let maxNamed = 20

    static func candidates(_ results: [SocketResult]) -> String {
        "\(results.count) candidate\(results.count == 1 ? "" : "s")"
    }

    static func answers(_ results: [SocketResult]) -> String {
        "\(results.count { $0.probe?.answered == true }) answered, \(results.count(where: \.isSilent)) silent"
    }

    /// The answers of a run that only probes, and how many could not be asked or were reset.
    static func answersAndFailures(_ outcome: RunOutcome) -> String {
        let failed = Summary(outcome.results, outcome.failures).failed
        let answers = answers(outcome.results)
        return failed > 0 ? "\(answers), \(failed) failed" : answers
    }

    func message(_ line: @autoclosure () -> String) {
        if !output.quiet { StandardStreams.error(line()) }
    }

    func step(_ line: @autoclosure () -> String) {
        if output.verbose { StandardStreams.error(line()) }
    }

    /// One socket's change, as `watch` tells it.
    func change(_ result: SocketResult) {
        guard let after = result.after else { return }
        message("\(Self.name(result.socket)): keepalive \(result.before?.brief ?? "?") → \(after.brief)")
    }

    /// One socket's outcome, for `--verbose`.
    func step(_ result: SocketResult) {
        guard output.verbose else { return }
        let memory = result.settingsSource.isRemembered ? ", as remembered; nobody was stopped" : ""
        let way = result.method.map { " by \($0.rawValue), target stopped for \(result.pausedMicroseconds) µs" } ?? ""
        let rights = result.rights.map { $0 == .owner ? ", with its owner's rights" : ", with all rights kept" } ?? ""
        step(
            "\(Self.name(result.socket)): \(AnswerText(result).sentence ?? result.action.rawValue)\(way)\(rights)\(RestartText(result).words)\(memory)"
        )
    }

    /// What the probe behind an injection said, for `--verbose`.
    func proof(_ result: SocketResult) {
        if let answer = AnswerText(result).sentence { step("\(Self.name(result.socket)): \(answer)") }
    }

    static func name(_ socket: DiscoveredSocket) -> String {
        let fd = socket.holder.map { " fd \($0.fd)" } ?? ""
        let peer = socket.row.state.hasPeer ? "→ \(socket.row.remoteDescription)" : "listening"
        return "\(socket.process.name.escaped) (PID \(socket.process.pid))\(fd) \(socket.row.localDescription) \(peer)"
    }
}

import SockaliveCore

/// The result of the demo.
package struct DemoOutcome {
    struct Result {
        let track: Track
        let echo: Echo
        let dropped: Int
    }

    let method: MethodChoice
    let results: [Result]

    /// The session with injected keepalive answered, and the other one did not.
    package var isAsExpected: Bool {
        results.allSatisfy { $0.echo.isAnswered == ($0.track.session == .injected) }
    }

    func lines(_ screen: Screen) -> [String] {
        results.map { $0.line(screen) } + [""]
            + results.map { screen.paint($0.verdict, $0.echo.isAnswered ? .green : .red) }
    }
}

extension DemoOutcome.Result {
    fileprivate func line(_ screen: Screen) -> String {
        let drops = dropped == 0 ? "" : "; the firewall dropped \(dropped) packet\(dropped == 1 ? "" : "s")"
        let answer =
            switch echo {
            case .answered(let milliseconds): screen.paint("answered", .green) + " in \(milliseconds.tenths) ms"
            case .silent: screen.paint("no answer", .red) + " in \(DemoSettings.echoTimeout)s\(drops)"
            case .broken(let reason): screen.paint("broken", .red) + ": \(reason)\(drops)"
            }
        return track.session.address.padded(11) + "\(track.session)".padded(13) + answer
    }

    fileprivate var verdict: String {
        let address = track.session.address
        return switch (track.session, echo.isAnswered) {
        case (.injected, true): "LIVED  \(address): the injected keepalive kept the firewall's memory of it fresh."
        case (.untouched, false): "DIED   \(address): the firewall forgot it, and dropped what the agent sent."
        case (.injected, false): "DIED   \(address), and should have lived: keepalive was injected into it."
        case (.untouched, true): "LIVED  \(address), and should have died: nothing kept it in the firewall's memory."
        }
    }
}

/// The outcome as `--json` prints it.
package struct DemoReport: Encodable {
    let schema = 1
    let command = "demo"
    /// Seconds.
    let firewallTimeout = DemoSettings.firewallTimeout
    let idle = DemoSettings.idle
    let method: String
    let asExpected: Bool
    let sessions: [Session]

    package init(_ outcome: DemoOutcome) {
        method = outcome.method.rawValue
        asExpected = outcome.isAsExpected
        sessions = outcome.results.map(Session.init)
    }

    struct Session: Encodable {
        let remote: Remote
        let injected: Bool
        let probes: Int
        let forgotten: Bool
        let droppedPackets: Int
        let answered: Bool
        @Nullable var milliseconds: Double?

        init(_ result: DemoOutcome.Result) {
            remote = Remote(address: result.track.session.address)
            injected = result.track.session == .injected
            probes = result.track.probes
            forgotten = result.track.forgotten != nil
            droppedPackets = result.dropped
            answered = result.echo.isAnswered
            _milliseconds = Nullable(wrappedValue: result.echo.milliseconds)
        }
    }

    struct Remote: Encodable {
        let address: String
        let port = DemoSettings.port
    }
}

import SockaliveCore

/// How it went.
package struct DemoOutcome {
    struct Result {
        let track: Track
        let echo: Echo
        let dropped: Int
    }

    let method: MethodChoice
    let results: [Result]

    /// The session that had keepalive injected answered, the other did not.
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

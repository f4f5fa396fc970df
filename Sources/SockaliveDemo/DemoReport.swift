import SockaliveCore

/// The outcome as `--json` says it.
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

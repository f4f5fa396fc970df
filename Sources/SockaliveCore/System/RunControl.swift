import CSockalive

/// Says, between two sockets, whether a run has to end: its time is up, or a signal came.
public struct RunControl: Sendable {
    private let deadline: ContinuousClock.Instant
    private let limit: Seconds

    public init(limit: Seconds) {
        self.limit = limit
        deadline = .now + .seconds(limit.count)
    }

    public var stopReason: StopReason? {
        switch sockalive_stop_signal() {
        case 0: ContinuousClock.now >= deadline ? .timeout(limit) : nil
        case 1: .signal("SIGHUP")
        case 2: .signal("SIGINT")
        case 15: .signal("SIGTERM")
        case let number: .signal("signal \(number)")
        }
    }

    /// From now on SIGINT, SIGTERM and SIGHUP end a run between two sockets, never within one, and a
    /// reader that goes away does not kill it.
    public static func catchSignals() {
        _ = sockalive_install_stop_handlers()
    }
}

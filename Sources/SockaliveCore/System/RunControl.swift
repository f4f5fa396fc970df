import CSockalive

/// Says, between two sockets, whether a run has to end: its time is up, or a signal came.
public struct RunControl: Sendable {
    private let limit: (time: Seconds, deadline: ContinuousClock.Instant)?

    /// - Parameter limit: nil is without end.
    public init(limit: Seconds?) {
        self.limit = limit.map { ($0, .now + .seconds($0.count)) }
    }

    public var stopReason: StopReason? { stopReason(ahead: .zero) }

    /// - Parameter ahead: what is still to be done takes so long.
    func stopReason(ahead: Duration) -> StopReason? {
        switch sockalive_stop_signal() {
        case 0: limit.flatMap { ContinuousClock.now + ahead >= $0.deadline ? .timeout($0.time) : nil }
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

    /// From now on SIGHUP does not end a run, but a sleep.
    public static func wakeOnHangup() {
        _ = sockalive_wake_on_hangup()
    }

    /// Whether SIGHUP came since this was last asked.
    public static func takeHangup() -> Bool {
        guard isHangupPending else { return false }
        sockalive_take_hangup()
        return true
    }

    public static var isHangupPending: Bool { sockalive_is_hung_up() }

    /// Sleeps for so long, or until a signal comes. None is lost between a look and the sleep.
    public static func sleep(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        sockalive_sleep(max(0, seconds * 1_000_000_000 + attoseconds / 1_000_000_000))
    }
}

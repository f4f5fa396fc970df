/// One connection that was asked for a sign of life. Pure: all instants are milliseconds of one clock.
struct ProbeQuestion {
    /// Ages in tcp_info are whole clock ticks; the slowest clock ticks every 10 ms (CONFIG_HZ_100).
    private static let tick = 10.0

    /// Just before the timer was set.
    let asked: Double
    /// When the probe leaves at the earliest: TCP_KEEPIDLE is at least one second.
    let due: Double
    private let before: Pulse
    /// The last look that found it not yet sent.
    private var leftAfter: Double

    init(asked: Double, isArmed: Bool, pulse: Pulse) {
        self.asked = asked
        due = asked + (isArmed ? Double(max(0, 1000 - pulse.idleMilliseconds)) : 0)
        before = pulse
        leftAfter = due
    }

    /// - Returns: how long the answer took, in milliseconds, as exactly as the looks are close; nil as long
    ///   as nothing came from the peer since it was asked.
    mutating func answer(at now: Double, _ pulse: Pulse) -> Double? {
        let elapsed = now - asked
        func isFresh(_ age: KeyPath<Pulse, Int>) -> Bool {
            Double(pulse[keyPath: age]) + Self.tick < Double(before[keyPath: age]) + elapsed
        }
        // A peer that only sends has nothing to acknowledge: its data is an answer, too.
        guard isFresh(\.millisecondsSinceAck) || isFresh(\.millisecondsSinceData) else {
            if let sent = pulse.segmentsSent, sent == before.segmentsSent { leftAfter = max(leftAfter, now) }
            return nil
        }
        let came = now - max(0, Double(pulse.idleMilliseconds) - Self.tick)
        return max(0, came - leftAfter)
    }
}

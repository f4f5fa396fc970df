/// One connection that was asked for a sign of life. Pure: all instants are milliseconds of one clock.
struct PendingProbe {
    /// Ages in tcp_info are whole clock ticks; the slowest clock ticks every 10 ms (CONFIG_HZ_100).
    private static let tick = 10.0

    /// Between reading tcp_info and setting the timer.
    let asked: Double
    /// When the probe leaves at the earliest: TCP_KEEPIDLE is at least one second.
    let due: Double
    private let before: TCPInfo
    /// The last look that found it not yet sent.
    private var leftAfter: Double

    init(asked: Double, isArmed: Bool, tcpInfo: TCPInfo) {
        self.asked = asked
        due = asked + (isArmed ? Double(max(0, 1000 - tcpInfo.idleMilliseconds)) : 0)
        before = tcpInfo
        leftAfter = due
    }

    /// A look takes time, and by ptrace on a busy machine a lot of it: when it began is counted where an answer
    /// might else be seen that was none, and when it ended where the answer might else look faster.
    ///
    /// - Parameter interval: from before the connection was looked at until after.
    /// - Returns: how long the answer took at most, in milliseconds; nil as long as nothing came from the
    ///   peer since it was asked.
    mutating func answer(seenIn interval: ClosedRange<Double>, _ tcpInfo: TCPInfo) -> Double? {
        let elapsed = interval.lowerBound - asked
        func isFresh(_ age: KeyPath<TCPInfo, Int>) -> Bool {
            Double(tcpInfo[keyPath: age]) + Self.tick < Double(before[keyPath: age]) + elapsed
        }
        // A peer that only sends has nothing to acknowledge: its data is an answer, too.
        guard isFresh(\.millisecondsSinceAck) || isFresh(\.millisecondsSinceData) else {
            if let sent = tcpInfo.segmentsSent, sent == before.segmentsSent {
                leftAfter = max(leftAfter, interval.lowerBound)
            }
            return nil
        }
        let came = interval.upperBound - max(0, Double(tcpInfo.idleMilliseconds) - Self.tick)
        return max(0, came - leftAfter)
    }
}

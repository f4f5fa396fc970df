/// What a connection sends while data waits in its send queue. Pure.
///
/// Then no keepalive probe leaves: the keepalive timer only sets itself anew while packets are outstanding or the queue
/// is not empty (net/ipv4/tcp_timer.c, tcp_keepalive_timer). Data that was sent and not acknowledged is retransmitted.
/// Data that the peer has no window for makes zero-window probes leave. Each wait is twice the one before, up to
/// TCP_RTO_MAX (include/net/tcp.h), and an acknowledgement answers either.
extension TCPInfo {
    /// TCP_RTO_MAX; net.ipv4.tcp_rto_max_ms may make it less.
    static let maxWaitMilliseconds = 120_000.0
    /// TCP_RTO_MIN.
    private static let minWaitMilliseconds = 200.0
    /// Ages are whole clock ticks; the slowest clock ticks every 10 ms (CONFIG_HZ_100).
    static let tick = 10.0

    /// Data was sent that the peer has not acknowledged.
    var isRetransmitting: Bool { segmentsInFlight > 0 }

    /// Data waits that cannot be sent, and nothing is in flight: the peer's window is closed. Before Linux 4.6 that shows
    /// from the first zero-window probe on.
    var isProbingWindow: Bool { segmentsInFlight == 0 && (bytesNotSent.map { $0 > 0 } ?? (backoff > 0)) }

    var hasWaitingData: Bool { isRetransmitting || isProbingWindow }

    /// When, at the latest, the kernel sends the next packet that asks the peer for an acknowledgement; nil without
    /// waiting data, and where it cannot be told.
    var millisecondsToNextQuestion: Double? {
        let next = isRetransmitting ? toRetransmission : isProbingWindow ? toWindowProbe : nil
        return next.flatMap { $0 >= -Self.tick ? max(0, $0) : nil }
    }

    /// A timer fires up to an eighth of its time late (kernel/time/timer.c, LVL_CLK_SHIFT).
    private static let lateness = 9.0 / 8

    private var toRetransmission: Double {
        millisecondsOfRTO * Self.lateness - Double(min(millisecondsSinceDataSent, millisecondsSinceAck))
    }

    /// An acknowledgement that leaves the window closed arms the timer for RTO × 2^backoff (net/ipv4/tcp_input.c,
    /// tcp_ack_probe); each probe adds one to the backoff and arms it again (net/ipv4/tcp_output.c, tcp_send_probe0).
    /// So since the last acknowledgement one wait has passed for each unanswered probe, and one is under way.
    private var toWindowProbe: Double {
        let first = max(millisecondsOfRTO, Self.minWaitMilliseconds)
        let waits = (max(0, backoff - probesOutstanding)...backoff).map { doublings in
            min(first * Double(1 << min(doublings, 16)), Self.maxWaitMilliseconds)
        }
        return waits.reduce(0, +) * Self.lateness - Double(millisecondsSinceAck)
    }

    /// The last question that the waiting data made was answered, so many milliseconds ago; nil where it was not, where
    /// none was made, and where the answer is older than any wait.
    var millisecondsSinceAnswer: Double? {
        let age = Double(millisecondsSinceAck)
        let isAnswered =
            isRetransmitting
            ? age + Self.tick < Double(millisecondsSinceDataSent) : isProbingWindow && probesOutstanding == 0
        return isAnswered && age <= 2 * Self.maxWaitMilliseconds ? age : nil
    }
}

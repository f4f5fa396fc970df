/// What is done to one socket so that it sends a keepalive probe now, and what makes it as before. Pure.
///
/// While it is asked, and only then, a socket's TCP_KEEPCNT has a value that nobody chooses: the probe marker. It is
/// the first option that is changed and the last that is put back, so whenever this program is killed,
/// a socket either is as it was or bears the probe marker (see ``KeepaliveSettings/hasProbeMarker``).
package enum ProbePlan {
    /// Longer than anybody waits for an answer, so one probe leaves and no second; short enough that a
    /// socket left so by a killed run goes on being probed, every five minutes.
    static let interval: Int32 = 307
    package static let maxWait = Seconds(300)

    /// May the keepalive timer fire once more without giving the connection up? It does that where probes are
    /// outstanding and TCP_USER_TIMEOUT is over, or their number has reached TCP_KEEPCNT
    /// (net/ipv4/tcp_timer.c, tcp_keepalive_timer).
    static func mayFire(_ settings: KeepaliveSettings, probesOutstanding: Int) -> Bool {
        probesOutstanding == 0 || (settings.userTimeout == 0 && probesOutstanding < Int(settings.count))
    }

    /// The calls that make it send a probe, or as soon as it has been idle for one second: TCP_KEEPIDLE,
    /// set last, fires at once where the connection has been idle for longer.
    /// Empty where the question needs no probe, or where a probe might end the connection.
    static func arming(_ found: KeepaliveSettings, _ tcpInfo: TCPInfo) -> [KeepaliveStep] {
        var armed = found
        armed.count = KeepaliveSettings.probeMarker
        // While data waits, no keepalive probe leaves, and the kernel asks by other packets.
        guard !tcpInfo.hasWaitingData, mayFire(armed, probesOutstanding: tcpInfo.probesOutstanding) else {
            return []
        }
        var steps: [KeepaliveStep] = [.count(KeepaliveSettings.probeMarker)]
        // A shorter interval of the application's stays in force: its own keepalive must not pause meanwhile.
        if !found.enabled || found.interval > interval || found.userTimeout != 0 { steps.append(.interval(interval)) }
        if !found.enabled { steps.append(.enable(true)) }
        return steps + [.idle(1)]
    }

    /// The calls that put `found` back. TCP_KEEPIDLE arms the timer for the rest of the idle time, which may
    /// be over. Where that might end the connection, keepalive is off meanwhile: switched on, it starts anew.
    static func restoring(_ found: KeepaliveSettings, probesOutstanding: Int) -> [KeepaliveStep] {
        let idle: [KeepaliveStep] =
            !found.enabled
            ? [.enable(false), .idle(found.idle)]
            : mayFire(found, probesOutstanding: probesOutstanding)
                ? [.idle(found.idle)]
                : [.enable(false), .idle(found.idle), .enable(true)]
        return [.interval(found.interval)] + idle + [.count(found.count)]
    }
}

/// One connection that was asked for a sign of life. Pure: all instants are milliseconds of one clock.
///
/// Without waiting data the question is a keepalive probe. Otherwise it is what the kernel sends by itself: the next
/// zero-window probe or retransmission, which nothing makes leave sooner.
struct PendingProbe {
    /// Between reading tcp_info and setting the timer.
    let asked: Double
    /// When the question leaves at the earliest: TCP_KEEPIDLE is at least one second.
    let due: Double
    /// When the kernel sends the next question for data that waits; nil without waiting data.
    private let nextQuestion: Double?
    private let before: TCPInfo
    /// The last look that found it not yet sent.
    private var leftAfter: Double

    init(asked: Double, isArmed: Bool, tcpInfo: TCPInfo) {
        self.asked = asked
        due = asked + (isArmed ? Double(max(0, 1000 - tcpInfo.idleMilliseconds)) : 0)
        nextQuestion = tcpInfo.hasWaitingData ? asked + (tcpInfo.millisecondsToNextQuestion ?? 0) : nil
        before = tcpInfo
        leftAfter = due
    }

    /// As long as the kernel waits for the answer to a first packet, and at least a second.
    private var answerTime: Double {
        let doublings = before.isRetransmitting ? min(before.backoff, 16) : 0
        return max(1000, before.millisecondsOfRTO / Double(1 << doublings))
    }

    /// Until when an answer may come. A peer answers only two zero-window probes a second
    /// (net.ipv4.tcp_invalid_ratelimit), so one that is due at once is not the last that counts.
    func end(wait: Double) -> Double {
        nextQuestion.map { max(asked + wait, $0 + answerTime) } ?? due + wait
    }

    enum Conclusion: Equatable {
        /// The last question of the kernel's was answered, so many milliseconds ago.
        case answeredBefore(Double)
        case silent
    }

    /// What a look says that found no answer; nil as long as one may still come.
    ///
    /// - Parameters:
    ///   - tcpInfo: what was seen.
    ///   - canWait: whether the run's time limit allows to wait until ``end(wait:)``.
    func conclusion(at now: Double, _ tcpInfo: TCPInfo, wait: Double, canWait: Bool) -> Conclusion? {
        if now < end(wait: wait) {
            // The next question comes too late for this run. The last one counts, unless its answer may be under way.
            guard nextQuestion != nil, !canWait else { return nil }
            if let age = tcpInfo.millisecondsSinceAnswer { return .answeredBefore(age) }
            return now < asked + wait ? nil : .silent
        }
        return tcpInfo.millisecondsSinceAnswer.map { .answeredBefore($0) } ?? .silent
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
            Double(tcpInfo[keyPath: age]) + TCPInfo.tick < Double(before[keyPath: age]) + elapsed
        }
        // A peer that only sends has nothing to acknowledge: its data is an answer, too.
        guard isFresh(\.millisecondsSinceAck) || isFresh(\.millisecondsSinceData) else {
            if let sent = tcpInfo.segmentsSent, sent == before.segmentsSent {
                leftAfter = max(leftAfter, interval.lowerBound)
            }
            return nil
        }
        let came = interval.upperBound - max(0, Double(tcpInfo.idleMilliseconds) - TCPInfo.tick)
        return max(0, came - leftAfter)
    }
}

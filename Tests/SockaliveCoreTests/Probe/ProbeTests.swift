import Testing

@testable import SockaliveCore

private let off = KeepaliveSettings(enabled: false, idle: 7200, interval: 75, count: 9)
private let oneHour = KeepaliveSettings(enabled: true, idle: 600, interval: 60, count: 50)
private let idle = TCPInfo(millisecondsSinceData: 60_000, millisecondsSinceAck: 50_000, segmentsSent: 7)

@Suite struct ProbePlanTests {
    private static let settings = [
        off, oneHour,
        KeepaliveSettings(enabled: true, idle: 7200, interval: 3600, count: 1),
        KeepaliveSettings(enabled: true, idle: 1, interval: 1, count: 127),
        KeepaliveSettings(enabled: true, idle: 30, interval: 5, count: 3, userTimeout: 20_000),
        KeepaliveSettings(enabled: false, idle: 1, interval: 307, count: 113),
    ]

    @Test(arguments: settings) func `a probed socket gets all its settings back`(found: KeepaliveSettings) {
        let armed = found.applying(.set(ProbePlan.arming(found, idle)))
        #expect(armed.enabled && armed.idle == 1)
        #expect(armed.userTimeout == found.userTimeout)
        for outstanding in [0, 1, 200] {
            let steps = ProbePlan.restoring(found, probesOutstanding: outstanding)
            #expect(armed.applying(.set(steps)) == found)
        }
    }

    /// After a kill between any two calls the settings are unchanged or marked. The next injection sets the wanted
    /// values.
    @Test(arguments: settings) func `after any kill the next injection repairs it`(found: KeepaliveSettings) {
        for outstanding in [0, 1, 200] {
            let steps =
                ProbePlan.arming(found, idle) + ProbePlan.restoring(found, probesOutstanding: outstanding)
            for killedAfter in 0...steps.count {
                let left = found.applying(.set(Array(steps.prefix(killedAfter))))
                #expect(left == found || left.hasProbeMarker, "\(killedAfter) of \(steps)")
                guard left != found || found.hasProbeMarker else { continue }
                #expect(left.verdict(against: Seconds(3600)) != .protected)
                let mended = left.applying(KeepalivePlan(current: left, request: KeepaliveRequest()))
                #expect(mended == oneHour.with(userTimeout: found.userTimeout))
                let turnedOff = KeepaliveRequest(enabled: false)
                let disabled = left.applying(KeepalivePlan(current: left, request: turnedOff))
                #expect(!disabled.enabled && !disabled.hasProbeMarker)
                #expect(KeepalivePlan(current: disabled, request: turnedOff) == .leave)
            }
        }
    }

    @Test func `idle is set last, because it sends the probe`() {
        #expect(ProbePlan.arming(off, idle) == [.count(113), .interval(307), .enable(true), .idle(1)])
        #expect(ProbePlan.arming(oneHour, idle) == [.count(113), .idle(1)])
    }

    @Test func `during the wait only the application's own keepalive may send a second probe`() {
        #expect(Int(ProbePlan.interval) > ProbePlan.maxWait.count)
        let slow = KeepaliveSettings(enabled: true, idle: 7200, interval: 3600, count: 9)
        #expect(ProbePlan.arming(slow, idle).contains(.interval(307)))
        // With a user timeout, a second probe might end the connection.
        let limited = KeepaliveSettings(enabled: true, idle: 30, interval: 5, count: 3, userTimeout: 20_000)
        #expect(ProbePlan.arming(limited, idle).contains(.interval(307)))
    }

    @Test func `a connection is left alone if one probe more might end it`() {
        func tcpInfo(probes: Int = 0, inFlight: Int = 0, notSent: Int = 0) -> TCPInfo {
            TCPInfo(
                probesOutstanding: probes, segmentsInFlight: inFlight, millisecondsSinceData: 60_000,
                millisecondsSinceAck: 60_000, bytesNotSent: notSent)
        }
        let limited = KeepaliveSettings(enabled: true, idle: 30, interval: 5, count: 3, userTimeout: 20_000)
        #expect(ProbePlan.arming(limited, tcpInfo(probes: 1)) == [])
        #expect(ProbePlan.arming(oneHour, tcpInfo(probes: 113)) == [])
        #expect(ProbePlan.arming(oneHour, tcpInfo(probes: 112)) != [])
        #expect(ProbePlan.arming(oneHour, tcpInfo(inFlight: 1)) == [])
        #expect(ProbePlan.arming(oneHour, tcpInfo(notSent: 1)) == [])
    }

    /// With keepalive on, TCP_KEEPIDLE fires at once if the connection has been idle for longer.
    @Test func `the restore fires no timer that would end the connection`() {
        let single = KeepaliveSettings(enabled: true, idle: 10, interval: 60, count: 1)
        #expect(ProbePlan.restoring(single, probesOutstanding: 0) == [.interval(60), .idle(10), .count(1)])
        #expect(
            ProbePlan.restoring(single, probesOutstanding: 1)
                == [.interval(60), .enable(false), .idle(10), .enable(true), .count(1)])
        #expect(ProbePlan.restoring(off, probesOutstanding: 1).first { $0 != .interval(75) } == .enable(false))
    }

    @Test func `no derived count is the marker`() {
        for timeout in 4...20_000 {
            for interval in [nil, 1, 7, 30] {
                let wanted = KeepaliveRequest(firewallTimeout: Seconds(timeout), interval: interval).wanted
                #expect(wanted.count != KeepaliveSettings.probeMarker, "\(timeout)")
            }
        }
    }
}

extension KeepaliveSettings {
    fileprivate func with(userTimeout: Int32) -> KeepaliveSettings {
        var result = self
        result.userTimeout = userTimeout
        return result
    }
}

@Suite struct PendingProbeTests {
    private func look(ack: Int, data: Int = 90_000, sent: UInt32? = 8) -> TCPInfo {
        TCPInfo(millisecondsSinceData: data, millisecondsSinceAck: ack, segmentsSent: sent)
    }

    @Test func `a new acknowledgement is an answer, and an old one is not`() {
        var pending = PendingProbe(asked: 100, isArmed: true, tcpInfo: idle)
        #expect(pending.answer(seenIn: 101...101, look(ack: 50_000, sent: 7)) == nil)
        #expect(pending.answer(seenIn: 150...150, look(ack: 50_050)) == nil)
        #expect(pending.answer(seenIn: 3100...3100, look(ack: 53_000)) == nil)
        #expect(pending.answer(seenIn: 3104...3104, look(ack: 4)) == 3003)
    }

    /// Ages come in clock ticks of up to 10 ms. An age that grows more slowly than the time is no answer.
    @Test func `a coarse clock gives no false answer`() {
        var pending = PendingProbe(asked: 0, isArmed: true, tcpInfo: look(ack: 4, data: 4))
        for elapsed in stride(from: 0.0, to: 900, by: 0.5) {
            let age = Int(elapsed / 10) * 10 + 4
            #expect(pending.answer(seenIn: elapsed...elapsed, look(ack: age, data: age)) == nil)
        }
    }

    /// A read by ptrace on a busy machine: 300 ms pass between the read of tcp_info and the read of the clock.
    @Test func `a slow poll gives no false answer`() {
        var pending = PendingProbe(asked: 100, isArmed: true, tcpInfo: idle)
        #expect(pending.answer(seenIn: 200...500, look(ack: 50_110)) == nil)
        #expect(pending.answer(seenIn: 200...500, look(ack: 50)) == 360)
    }

    @Test func `a connection is probed as soon as it has been idle for a second`() {
        var pending = PendingProbe(asked: 100, isArmed: true, tcpInfo: look(ack: 300, sent: 7))
        #expect(pending.due == 800)
        #expect(pending.answer(seenIn: 700...700, look(ack: 900, data: 90_600, sent: 7)) == nil)
        #expect(pending.answer(seenIn: 802...802, look(ack: 0, data: 90_700)) == 2)
    }

    @Test func `the time before the probe is sent does not count`() {
        var pending = PendingProbe(asked: 0, isArmed: true, tcpInfo: idle)
        #expect(pending.answer(seenIn: 3...3, look(ack: 50_004, sent: 7)) == nil)
        #expect(pending.answer(seenIn: 4...4, look(ack: 0)) == 1)
    }

    @Test func `the acknowledgement of data in flight is an answer, and so is received data`() {
        var pending = PendingProbe(asked: 0, isArmed: false, tcpInfo: idle)
        #expect(pending.due == 0)
        #expect(pending.answer(seenIn: 80...80, look(ack: 4)) == 80)
        var stream = PendingProbe(asked: 0, isArmed: true, tcpInfo: look(ack: 50_000, data: 200))
        #expect(stream.answer(seenIn: 500...500, look(ack: 50_500, data: 8)) != nil)
    }
}

/// Linux 6.18, captured: a peer that never reads, with an RTO of 208 ms; ss told the rest of the timer.
@Suite struct WaitingDataTests {
    private func window(_ probes: Int, _ backoff: Int, ack: Int, notSent: Int? = 2_803_472) -> TCPInfo {
        TCPInfo(
            probesOutstanding: probes, millisecondsSinceData: 90_000, millisecondsSinceAck: ack, segmentsSent: 8,
            bytesNotSent: notSent, backoff: backoff, millisecondsOfRTO: 208, millisecondsSinceDataSent: 90_000)
    }

    private func inFlight(rto: Double, sent: Int, ack: Int, backoff: Int = 0) -> TCPInfo {
        TCPInfo(
            segmentsInFlight: 1, millisecondsSinceData: 90_000, millisecondsSinceAck: ack, backoff: backoff,
            millisecondsOfRTO: rto, millisecondsSinceDataSent: sent)
    }

    @Test(arguments: [
        (0, 1, 252, 156.0), (0, 3, 488, 1172), (0, 4, 312, 3012), (0, 5, 364, 6284), (1, 2, 764, 496),
        (1, 6, 17036, 3184), (2, 7, 38712, 8392),
    ])
    func `the next window probe is known from tcp_info alone`(
        probes: Int, backoff: Int, ack: Int, rest: Double
    ) throws {
        let next = try #require(window(probes, backoff, ack: ack).millisecondsToNextQuestion)
        // Each timer was late by less than an eighth of its time.
        #expect((rest - TCPInfo.tick...rest + (rest + Double(ack)) / 8 + TCPInfo.tick).contains(next), "\(next)")
    }

    @Test func `no wait is longer than two minutes, whatever the numbers`() throws {
        #expect(window(0, 15, ack: 1000).millisecondsToNextQuestion == 134_000)
        #expect(window(0, 255, ack: 1000).millisecondsToNextQuestion == 134_000)
        #expect(window(255, 255, ack: 0).millisecondsToNextQuestion != nil)
        #expect(window(255, 3, ack: .max).millisecondsToNextQuestion == nil)
    }

    @Test func `waiting data shows by the queue, or by the backoff where the kernel is too old to tell`() {
        #expect(window(0, 0, ack: 9).isProbingWindow)
        #expect(!window(0, 0, ack: 9, notSent: 0).hasWaitingData)
        #expect(!window(0, 3, ack: 9, notSent: 0).hasWaitingData)
        #expect(window(0, 3, ack: 9, notSent: nil).isProbingWindow)
        #expect(!window(0, 0, ack: 9, notSent: nil).hasWaitingData)
        #expect(inFlight(rto: 200, sent: 9, ack: 9).isRetransmitting)
    }

    @Test func `the last window probe was answered unless one is outstanding`() {
        #expect(window(0, 5, ack: 6000).millisecondsSinceAnswer == 6000)
        #expect(window(1, 5, ack: 6000).millisecondsSinceAnswer == nil)
        #expect(window(0, 5, ack: 300_000).millisecondsSinceAnswer == nil)
        #expect(window(0, 5, ack: 6000, notSent: 0).millisecondsSinceAnswer == nil)
    }

    @Test func `a retransmission was answered if an acknowledgement came after it`() {
        #expect(inFlight(rto: 800, sent: 500, ack: 100).millisecondsSinceAnswer == 100)
        #expect(inFlight(rto: 800, sent: 500, ack: 495).millisecondsSinceAnswer == nil)
        #expect(inFlight(rto: 800, sent: 500, ack: 9000).millisecondsSinceAnswer == nil)
        #expect(inFlight(rto: 800, sent: 500, ack: 9000).millisecondsToNextQuestion == 400)
    }

    private func conclusion(
        _ before: TCPInfo, _ now: TCPInfo, after milliseconds: Double, canWait: Bool
    ) -> PendingProbe.Conclusion? {
        PendingProbe(asked: 100, isArmed: false, tcpInfo: before)
            .conclusion(at: 100 + milliseconds, now, wait: 5000, canWait: canWait)
    }

    @Test func `the next window probe is waited for if the run's time allows it`() {
        let before = window(0, 6, ack: 1000)
        let pending = PendingProbe(asked: 100, isArmed: false, tcpInfo: before)
        // 13,312 ms and an eighth, of which a second is over; and a second for the answer.
        #expect(pending.end(wait: 5000) == 15_076)
        #expect(conclusion(before, window(0, 6, ack: 1100), after: 100, canWait: true) == nil)
        #expect(conclusion(before, window(1, 7, ack: 13_400), after: 12_400, canWait: true) == nil)
        #expect(conclusion(before, window(1, 7, ack: 14_400), after: 14_976, canWait: true) == .silent)
        #expect(conclusion(before, window(0, 6, ack: 1100), after: 100, canWait: false) == .answeredBefore(1100))
    }

    @Test func `an unanswered window probe is silence when the wait is over, and not at once`() {
        let before = window(1, 9, ack: 60_000)
        #expect(conclusion(before, window(1, 9, ack: 60_100), after: 100, canWait: false) == nil)
        #expect(conclusion(before, window(1, 9, ack: 65_001), after: 5001, canWait: false) == .silent)
    }

    @Test func `a keepalive probe that has no answer is silence, however much time the run has`() {
        for canWait in [true, false] {
            var pending = PendingProbe(asked: 0, isArmed: true, tcpInfo: idle)
            let later = TCPInfo(millisecondsSinceData: 65_000, millisecondsSinceAck: 55_000, segmentsSent: 8)
            #expect(pending.answer(seenIn: 4990...4990, later) == nil)
            #expect(pending.conclusion(at: 4990, later, wait: 5000, canWait: canWait) == nil)
            #expect(pending.conclusion(at: 5000, later, wait: 5000, canWait: canWait) == .silent)
        }
    }
}

@Suite struct TCPInfoTests {
    @Test func `tcp_info is read at its offsets, at any length`() throws {
        var bytes = [UInt8](repeating: 0, count: 232)
        bytes[0] = 1
        bytes[3] = 2
        bytes[4] = 4
        bytes[9...10] = [0x03, 0x02]
        bytes[24] = 3
        bytes[44] = 77
        bytes[52...53] = [0x10, 0x27]
        bytes[56...57] = [0xe8, 0x03]
        bytes[136] = 9
        bytes[144...145] = [0x00, 0x01]
        func tcpInfo(_ count: Int) -> TCPInfo? { bytes.withUnsafeBytes { TCPInfo(.init(rebasing: $0[..<count])) } }
        let whole = TCPInfo(
            probesOutstanding: 2, segmentsInFlight: 3, millisecondsSinceData: 10_000, millisecondsSinceAck: 1000,
            segmentsSent: 9, bytesNotSent: 256, backoff: 4, millisecondsOfRTO: 131.84, millisecondsSinceDataSent: 77)
        #expect(tcpInfo(232) == whole)
        #expect(whole.idleSeconds == 1)
        #expect(tcpInfo(104)?.segmentsSent == nil)
        #expect(tcpInfo(104)?.bytesNotSent == nil)
        #expect(tcpInfo(144)?.bytesNotSent == nil)
        #expect(tcpInfo(104)?.probesOutstanding == 2)
        #expect(tcpInfo(59) == nil)
    }
}

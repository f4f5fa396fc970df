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
        func tcpInfo(probes: Int = 0, inFlight: Int = 0) -> TCPInfo {
            TCPInfo(
                probesOutstanding: probes, segmentsInFlight: inFlight, millisecondsSinceData: 60_000,
                millisecondsSinceAck: 60_000)
        }
        let limited = KeepaliveSettings(enabled: true, idle: 30, interval: 5, count: 3, userTimeout: 20_000)
        #expect(ProbePlan.arming(limited, tcpInfo(probes: 1)) == [])
        #expect(ProbePlan.arming(oneHour, tcpInfo(probes: 113)) == [])
        #expect(ProbePlan.arming(oneHour, tcpInfo(probes: 112)) != [])
        #expect(ProbePlan.arming(oneHour, tcpInfo(inFlight: 1)) == [])
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

@Suite struct TCPInfoTests {
    @Test func `tcp_info is read at its offsets, at any length`() throws {
        var bytes = [UInt8](repeating: 0, count: 232)
        bytes[0] = 1
        bytes[3] = 2
        bytes[24] = 3
        bytes[52...53] = [0x10, 0x27]
        bytes[56...57] = [0xe8, 0x03]
        bytes[136] = 9
        func tcpInfo(_ count: Int) -> TCPInfo? { bytes.withUnsafeBytes { TCPInfo(.init(rebasing: $0[..<count])) } }
        let whole = TCPInfo(
            probesOutstanding: 2, segmentsInFlight: 3, millisecondsSinceData: 10_000, millisecondsSinceAck: 1000,
            segmentsSent: 9)
        #expect(tcpInfo(232) == whole)
        #expect(whole.idleSeconds == 1)
        #expect(tcpInfo(104)?.segmentsSent == nil)
        #expect(tcpInfo(104)?.probesOutstanding == 2)
        #expect(tcpInfo(59) == nil)
    }
}

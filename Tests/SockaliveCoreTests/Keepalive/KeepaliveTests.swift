import Testing

@testable import SockaliveCore

@Suite struct DurationTests {
    @Test(arguments: [
        ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1h30m10s", 5410), ("1h5s", 3605),
        ("007", 7),
    ])
    func `durations are parsed`(text: String, seconds: Int) {
        #expect(Seconds(parsing: text)?.count == seconds)
    }

    @Test(arguments: [
        "", "0", "0s", "s", "h", "1d", "-1", "+1", "1.5h", "30m1h", "1h1h", "1h30", "90 s", " 90", "1H", "0x10",
        "99999999999999999999", "9223372036854775807", "9223372036854775807h", "1m-5s", "٣",
    ])
    func `other texts give no duration`(text: String) {
        #expect(Seconds(parsing: text) == nil)
    }

    @Test(arguments: [
        (0, "0s"), (59, "59s"), (60, "1m"), (2530, "42m10s"), (3600, "1h"), (5400, "1h30m"), (3601, "1h1s"),
    ])
    func `durations are formatted`(seconds: Int, text: String) {
        #expect(Seconds(seconds).description == text)
    }
}

@Suite struct RequestTests {
    @Test(arguments: [
        (3600, 600, 60, 50), (4, 1, 1, 3), (5, 1, 1, 4), (6, 1, 1, 5), (90, 15, 1, 75), (60, 10, 1, 50),
        (7200, 1200, 120, 50), (300, 50, 5, 50), (1_000_000, 32767, 16666, 59), (3_000_000, 32767, 32767, 91),
        (100_000_000, 32767, 32767, 127),
    ])
    func `the three values follow from the firewall's timeout`(timeout: Int, idle: Int32, interval: Int32, count: Int32)
    {
        let wanted = KeepaliveRequest(firewallTimeout: Seconds(timeout)).wanted
        #expect([wanted.idle, wanted.interval, wanted.count] == [idle, interval, count])
    }

    @Test func `derived values protect at every timeout, and never give up sooner`() {
        for timeout in 4...20_000 {
            let wanted = KeepaliveRequest(firewallTimeout: Seconds(timeout)).wanted
            let settings = KeepaliveSettings(
                enabled: true, idle: wanted.idle, interval: wanted.interval, count: wanted.count)
            #expect(settings.verdict(against: Seconds(timeout)) == .protected, "\(timeout)")
            #expect(Int(wanted.idle) + Int(wanted.interval) * Int(wanted.count) >= timeout, "\(timeout)")
        }
    }

    @Test func `one explicit value makes all three exact, with the rest derived`() {
        let request = KeepaliveRequest(idle: 300)
        #expect(request.isExact)
        #expect([request.wanted.idle, request.wanted.interval, request.wanted.count] == [300, 60, 55])
        #expect(KeepaliveRequest(idle: 900).wanted.count == 45)
        #expect(KeepaliveRequest(idle: 7200).wanted.count == 50)
        #expect(!KeepaliveRequest(userTimeout: 1000).isExact)
    }
}

@Suite struct VerdictTests {
    private func verdict(_ idle: Int32, _ interval: Int32, enabled: Bool = true) -> Verdict {
        KeepaliveSettings(enabled: enabled, idle: idle, interval: interval, count: 9).verdict(against: Seconds(3600))
    }

    @Test func `one lost probe must not matter`() {
        #expect(verdict(600, 60) == .protected)
        #expect(verdict(3479, 60) == .protected)
        #expect(verdict(3480, 60) == .atRisk)
        #expect(verdict(7200, 75) == .atRisk)
        #expect(verdict(600, 60, enabled: false) == .unprotected)
        #expect(verdict(32767, 32767) == .atRisk)
    }

    private func limited(_ userTimeout: Int32, enabled: Bool = true) -> KeepaliveSettings {
        KeepaliveSettings(enabled: enabled, idle: 600, interval: 60, count: 50, userTimeout: userTimeout)
    }

    /// The third unanswered probe leaves after 720 s. The timer that would send it ends the connection instead where
    /// the user timeout is over by then.
    @Test(
        arguments: [
            (0, .protected), (1, .atRisk), (2000, .atRisk), (660_000, .atRisk), (720_000, .atRisk),
            (720_001, .protected),
            (Int32.max, .protected),
        ] as [(Int32, Verdict)])
    func `a user timeout that is over before the third probe is a risk`(userTimeout: Int32, verdict: Verdict) {
        #expect(limited(userTimeout).verdict(against: Seconds(3600)) == verdict)
        #expect(limited(userTimeout, enabled: false).verdict(against: Seconds(3600)) == .unprotected)
    }

    @Test func `while data waits, what leaves instead of keepalive must come in time`() {
        func verdict(_ seconds: Double, idle: Double, _ timeout: Int, _ settings: Verdict = .protected) -> Verdict {
            settings.whileDataWaits(seconds, idle: idle, against: Seconds(timeout))
        }
        // An answered probe waits idle + seconds; if the next one is lost, another comes after twice that.
        #expect(verdict(1, idle: 0.6, 12) == .protected)
        #expect(verdict(3, idle: 1, 12) == .atRisk)
        #expect(verdict(20, idle: 0, 12) == .atRisk)
        #expect(verdict(60, idle: 60, 3600) == .protected)
        #expect(verdict(119, idle: 3361, 3600) == .atRisk)
        #expect(verdict(20, idle: 0, 12, .unprotected) == .unprotected)
    }

    @Test func `the remedy for a user timeout is one that protects`() throws {
        for (timeout, idle) in [(3600, 600), (12, 2), (4, 1), (60, 300)] as [(Int, Int32)] {
            let settings = KeepaliveSettings(enabled: true, idle: idle, interval: 1, count: 9, userTimeout: 1000)
            let risk = try #require(UserTimeoutRisk(settings, against: Seconds(timeout)))
            let enough = try #require(Seconds(parsing: String(risk.remedy.split(separator: " ").last ?? "")))
            var mended = settings
            mended.userTimeout = Int32(enough.count * 1000)
            #expect(UserTimeoutRisk(mended, against: Seconds(timeout)) == nil)
            #expect(enough.count >= timeout)
        }
    }
}

@Suite struct PlanTests {
    private let off = KeepaliveSettings(enabled: false, idle: 7200, interval: 75, count: 9)

    @Test func `idle comes last, because then the kernel counts the idle time so far`() {
        #expect(
            KeepalivePlan(current: off, request: KeepaliveRequest())
                == .set([.enable(true), .interval(60), .count(50), .idle(600)]))
    }

    /// Keepalive is off, but the values are the wanted ones. TCP_KEEPIDLE must be set; otherwise the timer starts anew.
    @Test func `idle is set even if it has the wanted value`() {
        let almost = KeepaliveSettings(enabled: false, idle: 600, interval: 60, count: 50)
        guard case .set(let steps) = KeepalivePlan(current: almost, request: KeepaliveRequest()) else {
            Issue.record("nothing planned")
            return
        }
        #expect(steps.last == .idle(600))
    }

    @Test func `after an executed plan there is nothing left to do`() {
        for current in [off, KeepaliveSettings(enabled: true, idle: 7200, interval: 5, count: 2)] {
            for request in [
                KeepaliveRequest(), KeepaliveRequest(idle: 300), KeepaliveRequest(userTimeout: 5000),
                KeepaliveRequest(enabled: false),
                KeepaliveRequest(firewallTimeout: Seconds(5), count: 127),
            ] {
                let after = current.applying(KeepalivePlan(current: current, request: request))
                #expect(KeepalivePlan(current: after, request: request) == .leave)
            }
        }
    }

    @Test func `a protected socket is left alone, even with other values`() {
        for kept in [
            KeepaliveSettings(enabled: true, idle: 300, interval: 60, count: 50),
            KeepaliveSettings(enabled: true, idle: 3000, interval: 75, count: 3),
        ] {
            #expect(KeepalivePlan(current: kept, request: KeepaliveRequest()) == .leave)
        }
    }

    @Test func `a keepalive that is too slow only becomes faster`() {
        let slow = KeepaliveSettings(enabled: true, idle: 7200, interval: 10, count: 9)
        let after = slow.applying(KeepalivePlan(current: slow, request: KeepaliveRequest()))
        #expect(after == KeepaliveSettings(enabled: true, idle: 600, interval: 10, count: 50))
    }

    @Test func `explicit values are set exactly, also looser ones`() {
        let tight = KeepaliveSettings(enabled: true, idle: 30, interval: 5, count: 3)
        let after = tight.applying(KeepalivePlan(current: tight, request: KeepaliveRequest(idle: 900)))
        #expect(after == KeepaliveSettings(enabled: true, idle: 900, interval: 60, count: 45))
    }

    @Test func `off turns keepalive off once`() {
        let on = KeepaliveSettings(enabled: true, idle: 600, interval: 60, count: 50)
        #expect(KeepalivePlan(current: on, request: KeepaliveRequest(enabled: false)) == .set([.enable(false)]))
        #expect(KeepalivePlan(current: off, request: KeepaliveRequest(enabled: false)) == .leave)
    }

    /// TCP_USER_TIMEOUT replaces the count, and no idle time or interval that is derived makes it longer.
    @Test func `a short user timeout is no reason to change what is fast enough`() {
        let kept = KeepaliveSettings(enabled: true, idle: 300, interval: 30, count: 9, userTimeout: 2000)
        #expect(kept.verdict(against: Seconds(3600)) == .atRisk)
        #expect(KeepalivePlan(current: kept, request: KeepaliveRequest()) == .leave)
        #expect(
            KeepalivePlan(current: kept, request: KeepaliveRequest(userTimeout: 3_600_000))
                == .set([.userTimeout(3_600_000)]))
    }

    @Test func `a user timeout alone changes nothing else`() {
        let on = KeepaliveSettings(enabled: true, idle: 300, interval: 30, count: 9)
        #expect(
            KeepalivePlan(current: on, request: KeepaliveRequest(userTimeout: 30_000)) == .set([.userTimeout(30_000)]))
    }
}

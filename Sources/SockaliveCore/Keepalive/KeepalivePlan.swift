/// The keepalive options of one socket, as getsockopt(2) answers them (tcp(7), socket(7)).
package struct KeepaliveSettings: Equatable, BitwiseCopyable, Sendable {
    /// SO_KEEPALIVE.
    package var enabled: Bool
    /// TCP_KEEPIDLE, seconds.
    package var idle: Int32
    /// TCP_KEEPINTVL, seconds.
    package var interval: Int32
    /// TCP_KEEPCNT, probes.
    package var count: Int32
    /// TCP_USER_TIMEOUT, milliseconds; 0 is off.
    package var userTimeout: Int32

    package init(enabled: Bool, idle: Int32, interval: Int32, count: Int32, userTimeout: Int32 = 0) {
        self.enabled = enabled
        self.idle = idle
        self.interval = interval
        self.count = count
        self.userTimeout = userTimeout
    }

    /// Beyond these the kernel answers EINVAL (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and
    /// MAX_TCP_KEEPCNT in include/net/tcp.h).
    package static let secondsRange: ClosedRange<Int> = 1...32767
    package static let countRange: ClosedRange<Int> = 1...127
}

/// Whether a socket outlives a firewall that forgets connections after an idle time.
package enum Verdict: String, Sendable {
    /// Keepalive is on and even a second probe comes before the deadline.
    case protected
    /// Keepalive is on, but too slow.
    case atRisk = "at_risk"
    /// Keepalive is off.
    case unprotected
    /// Idle for longer than the firewall waits: it has probably dropped the connection already.
    case expired
}

extension KeepaliveSettings {
    /// What these settings alone are worth against a firewall: one lost probe must not matter.
    package func verdict(against firewallTimeout: Seconds) -> Verdict {
        guard enabled else { return .unprotected }
        // What a killed probe left is no keepalive that anybody chose.
        guard !hasProbeMarker else { return .atRisk }
        return Int(idle) + 2 * Int(interval) < firewallTimeout.count ? .protected : .atRisk
    }
}

/// One setsockopt(2) call to come.
package enum KeepaliveStep: Equatable, Sendable {
    case enable(Bool)
    case interval(Int32)
    case count(Int32)
    case idle(Int32)
    /// Milliseconds.
    case userTimeout(Int32)
}

/// What is to be done to one socket. Pure: the same settings and request make the same plan,
/// and a dry run is the plan, printed.
package enum KeepalivePlan: Equatable, Sendable {
    /// The socket is as wanted, or stricter: nothing is touched.
    case leave
    /// These calls, in this order.
    case set([KeepaliveStep])

    package init(current: KeepaliveSettings, request: KeepaliveRequest) {
        let steps =
            request.wanted.enabled
            ? Self.stepsToEnable(current: current, request: request)
            : Self.stepsToDisable(current: current, request: request)
        self = steps.isEmpty ? .leave : .set(steps)
    }

    /// The order matters. SO_KEEPALIVE 0→1 arms the timer a whole idle time *from now*;
    /// TCP_KEEPIDLE, set while keepalive is on, subtracts the time the connection has already
    /// been idle and fires at once where that is longer (net/ipv4/tcp.c,
    /// tcp_sock_set_keepidle_locked). So TCP_KEEPIDLE comes last: a connection that is seconds
    /// away from the firewall's deadline is probed immediately, with the right interval
    /// and count already in force. It is set even where it has the wanted value already.
    private static func stepsToEnable(current: KeepaliveSettings, request: KeepaliveRequest) -> [KeepaliveStep] {
        var steps: [KeepaliveStep] = []
        if let userTimeout = request.wanted.userTimeout, userTimeout != current.userTimeout {
            steps.append(.userTimeout(userTimeout))
        }
        let target = target(current: current, request: request)
        if target.enabled != current.enabled || target.idle != current.idle
            || target.interval != current.interval || target.count != current.count
        {
            steps += [.enable(true), .interval(target.interval), .count(target.count), .idle(target.idle)]
        }
        return steps
    }

    /// A leftover's marker would be taken for a probe's again as soon as somebody switched keepalive on.
    private static func stepsToDisable(current: KeepaliveSettings, request: KeepaliveRequest) -> [KeepaliveStep] {
        let wanted = request.wanted
        let steps: [KeepaliveStep] = current.enabled ? [.enable(false)] : []
        guard current.hasProbeMarker else { return steps }
        return steps + [.interval(wanted.interval), .idle(wanted.idle), .count(wanted.count)]
    }

    /// Where the socket shall end. Without explicit values nothing that the application chose is
    /// loosened: a protected socket stays as it is, one that is on but too slow is only made faster.
    /// What a killed probe left is nobody's choice, and is replaced.
    private static func target(current: KeepaliveSettings, request: KeepaliveRequest) -> KeepaliveSettings {
        let wanted = request.wanted
        var target = KeepaliveSettings(
            enabled: true, idle: wanted.idle, interval: wanted.interval, count: wanted.count)
        guard !request.isExact, current.enabled, !current.hasProbeMarker else { return target }
        if current.verdict(against: request.firewallTimeout) == .protected { return current }
        target.idle = min(current.idle, wanted.idle)
        target.interval = min(current.interval, wanted.interval)
        return target
    }
}

extension KeepaliveSettings {
    /// What these settings are once the plan is carried out.
    package func applying(_ plan: KeepalivePlan) -> KeepaliveSettings {
        guard case .set(let steps) = plan else { return self }
        var result = self
        for step in steps {
            switch step {
            case .enable(let on): result.enabled = on
            case .interval(let seconds): result.interval = seconds
            case .count(let probes): result.count = probes
            case .idle(let seconds): result.idle = seconds
            case .userTimeout(let milliseconds): result.userTimeout = milliseconds
            }
        }
        return result
    }
}

extension KeepaliveSettings {
    /// TCP_KEEPCNT while a probe is under way, a value that nobody chooses: far from what people take (3 to 20), from the
    /// kernel's 9, from its limit 127, and from what ``KeepaliveRequest`` derives.
    package static let probeMarker: Int32 = 113

    /// A probe is under way on this socket, or one was killed before it put the settings back. Its TCP_KEEPIDLE
    /// of one second is nobody's choice, and what the application had chosen is lost.
    package var hasProbeMarker: Bool { count == Self.probeMarker }
}

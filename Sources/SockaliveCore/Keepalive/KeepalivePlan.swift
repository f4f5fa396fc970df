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

    /// Outside these ranges the kernel returns EINVAL (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT in
    /// include/net/tcp.h).
    package static let secondsRange: ClosedRange<Int> = 1...32767
    package static let countRange: ClosedRange<Int> = 1...127
}

/// Whether a socket survives a firewall that forgets idle connections.
package enum Verdict: String, Sendable {
    /// Keepalive is on, even a second probe comes before the firewall's timeout, and no user timeout ends the connection
    /// first.
    case protected
    /// Keepalive is on, but too slow, or a lost probe may end the connection.
    case atRisk = "at_risk"
    /// Keepalive is off.
    case unprotected
    /// Idle for longer than the firewall's timeout: the firewall has probably dropped the connection.
    case expired
}

extension KeepaliveSettings {
    /// The verdict on these settings alone. One lost probe must not matter.
    package func verdict(against firewallTimeout: Seconds) -> Verdict {
        guard enabled else { return .unprotected }
        // Values that a killed probe left behind are not the application's choice.
        guard !hasProbeMarker else { return .atRisk }
        return isTimely(against: firewallTimeout) && !endsBeforeThirdProbe ? .protected : .atRisk
    }
}

extension Verdict {
    /// While data waits, no keepalive probe leaves, and what leaves instead comes further and further apart: each wait is
    /// up to twice the one before, and at most two minutes (TCP_RTO_MAX). As with keepalive, one lost packet must not
    /// matter.
    ///
    /// - Parameters:
    ///   - seconds: until the next packet for the data that waits.
    ///   - idle: how long the connection has been idle by now.
    package func whileDataWaits(_ seconds: Double, idle: Double, against firewallTimeout: Seconds) -> Verdict {
        let next = idle + seconds
        let isTimely = next + min(2 * next, 120) < Double(firewallTimeout.count)
        return self == .protected && !isTimely ? .atRisk : self
    }
}

/// One planned setsockopt(2) call.
package enum KeepaliveStep: Equatable, Sendable {
    case enable(Bool)
    case interval(Int32)
    case count(Int32)
    case idle(Int32)
    /// Milliseconds.
    case userTimeout(Int32)
}

/// The planned changes of one socket. Pure: the same settings and request give the same plan. A dry run prints the
/// plan.
package enum KeepalivePlan: Equatable, Sendable {
    /// The socket is as wanted, or stricter. Nothing is changed.
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

    /// The order matters. SO_KEEPALIVE 0→1 arms the timer a whole idle time *from now*. TCP_KEEPIDLE, set while
    /// keepalive is on, subtracts the time that the connection has been idle, and fires at once if that is longer
    /// (net/ipv4/tcp.c, tcp_sock_set_keepidle_locked). So TCP_KEEPIDLE comes last: the kernel probes a connection
    /// seconds before the firewall's timeout, with the right interval and count. TCP_KEEPIDLE is set even if it has the
    /// wanted value.
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

    /// A marker must not stay: as soon as an application enables keepalive, it would be mistaken for a running probe's.
    private static func stepsToDisable(current: KeepaliveSettings, request: KeepaliveRequest) -> [KeepaliveStep] {
        let wanted = request.wanted
        let steps: [KeepaliveStep] = current.enabled ? [.enable(false)] : []
        guard current.hasProbeMarker else { return steps }
        return steps + [.interval(wanted.interval), .idle(wanted.idle), .count(wanted.count)]
    }

    /// The settings that the socket gets. Without explicit values, the application's own settings are never loosened: a
    /// socket that is fast enough stays as it is, and a socket that is on but too slow only becomes faster. Values that a
    /// killed probe left behind are replaced.
    ///
    /// Keepalive is switched on also where the socket's own user timeout makes a lost probe the end of the connection.
    /// Without keepalive the firewall drops the connection for certain, once it has been idle for long enough; with it,
    /// the connection ends only if a probe is lost. The user timeout is the application's choice and stays. The run
    /// says that the connection is at risk, and the remedy (``UserTimeoutRisk``).
    private static func target(current: KeepaliveSettings, request: KeepaliveRequest) -> KeepaliveSettings {
        let wanted = request.wanted
        var target = KeepaliveSettings(
            enabled: true, idle: wanted.idle, interval: wanted.interval, count: wanted.count)
        guard !request.isExact, current.enabled, !current.hasProbeMarker else { return target }
        // A short user timeout is no reason to touch the other values: none of them makes it longer.
        if current.isTimely(against: request.firewallTimeout) { return current }
        target.idle = min(current.idle, wanted.idle)
        target.interval = min(current.interval, wanted.interval)
        return target
    }
}

extension KeepaliveSettings {
    /// The settings after the plan is executed.
    package func applying(_ plan: KeepalivePlan) -> KeepaliveSettings {
        guard case .set(let steps) = plan else { return self }
        var result = self
        for step in steps { result.apply(step) }
        return result
    }

    mutating func apply(_ step: KeepaliveStep) {
        switch step {
        case .enable(let on): enabled = on
        case .interval(let seconds): interval = seconds
        case .count(let probes): count = probes
        case .idle(let seconds): idle = seconds
        case .userTimeout(let milliseconds): userTimeout = milliseconds
        }
    }
}

extension KeepaliveSettings {
    /// TCP_KEEPCNT during a probe. It is far from usual values (3 to 20), the kernel's default 9 and its limit 127, and
    /// ``KeepaliveRequest`` never derives it.
    package static let probeMarker: Int32 = 113

    /// A probe is running on this socket, or was killed before it restored the settings. Its TCP_KEEPIDLE of one second
    /// is not the application's choice, and the application's own settings are lost.
    package var hasProbeMarker: Bool { count == Self.probeMarker }
}

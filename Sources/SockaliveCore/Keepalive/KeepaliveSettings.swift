/// The keepalive options of one socket, as getsockopt(2) answers them (tcp(7), socket(7)).
public struct KeepaliveSettings: Equatable, Sendable {
    /// SO_KEEPALIVE.
    public var enabled: Bool
    /// TCP_KEEPIDLE, seconds.
    public var idle: Int32
    /// TCP_KEEPINTVL, seconds.
    public var interval: Int32
    /// TCP_KEEPCNT, probes.
    public var count: Int32
    /// TCP_USER_TIMEOUT, milliseconds; 0 is off.
    public var userTimeout: Int32

    public init(enabled: Bool, idle: Int32, interval: Int32, count: Int32, userTimeout: Int32 = 0) {
        self.enabled = enabled
        self.idle = idle
        self.interval = interval
        self.count = count
        self.userTimeout = userTimeout
    }

    /// Beyond these the kernel answers EINVAL (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and
    /// MAX_TCP_KEEPCNT in include/net/tcp.h).
    public static let secondsRange: ClosedRange<Int> = 1...32767
    public static let countRange: ClosedRange<Int> = 1...127
}

/// Whether a socket outlives a firewall that forgets connections after an idle time.
public enum Verdict: String, Sendable {
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
    public func verdict(against firewallTimeout: Seconds) -> Verdict {
        guard enabled else { return .unprotected }
        // What a killed probe left is no keepalive that anybody chose.
        guard !hasProbeMarker else { return .atRisk }
        return Int(idle) + 2 * Int(interval) < firewallTimeout.count ? .protected : .atRisk
    }
}

/// What the caller wants of every candidate.
package struct KeepaliveRequest: Equatable, BitwiseCopyable, Sendable {
    /// The idle time after which the firewall forgets a connection.
    package let firewallTimeout: Seconds
    /// The values that follow from the firewall's timeout and from what was given explicitly.
    package let wanted: Wanted
    /// Some value was given explicitly: the three values are exact, not an upper bound.
    package let isExact: Bool
    let explicitCount: Int?

    package struct Wanted: Equatable, BitwiseCopyable, Sendable {
        package let enabled: Bool
        package let idle: Int32
        package let interval: Int32
        package let count: Int32
        /// Milliseconds; nil leaves TCP_USER_TIMEOUT alone.
        package let userTimeout: Int32?
    }

    package static let defaultFirewallTimeout = Seconds(3600)
    /// Below 4 s no idle time and two intervals of whole seconds fit.
    package static let minFirewallTimeout = Seconds(4)

    /// Derives what is not given: idle = T/6, interval = T/60, and as many probes as fill the
    /// rest of T, so that keepalive never gives a connection up sooner than the firewall would.
    ///
    /// - Parameters:
    ///   - idle: seconds before the first probe, 1...32767.
    ///   - interval: seconds between probes, 1...32767.
    ///   - count: unanswered probes before the connection is given up, 1...127.
    ///   - userTimeout: TCP_USER_TIMEOUT in milliseconds.
    package init(
        firewallTimeout: Seconds = Self.defaultFirewallTimeout,
        idle: Int? = nil, interval: Int? = nil, count: Int? = nil,
        userTimeout: Int? = nil, enabled: Bool = true
    ) {
        let seconds = KeepaliveSettings.secondsRange
        let total = firewallTimeout.count
        let idleTime = (idle ?? total / 6).clamped(to: seconds)
        let between = (interval ?? total / 60).clamped(to: seconds)
        // An explicit idle time at or beyond T leaves no rest to fill; one lost probe must not end the
        // connection then, so the number of probes is that of the derived idle time.
        let rest = total - (idleTime < total ? idleTime : total / 6)
        let derived = (rest + between - 1) / between
        // The marker of a probe under way is nobody's choice; one more never gives a connection up sooner.
        let probes = (count ?? (derived == KeepaliveSettings.probeMarker ? derived + 1 : derived))
            .clamped(to: KeepaliveSettings.countRange)
        self.firewallTimeout = firewallTimeout
        self.isExact = idle != nil || interval != nil || count != nil
        self.explicitCount = count
        self.wanted = Wanted(
            enabled: enabled, idle: Int32(idleTime), interval: Int32(between), count: Int32(probes),
            userTimeout: userTimeout.map { Int32(clamping: $0) })
    }
}

extension Int {
    fileprivate func clamped(to range: ClosedRange<Int>) -> Int {
        Swift.min(Swift.max(self, range.lowerBound), range.upperBound)
    }
}

extension KeepaliveRequest {
    /// What satisfies all of them; nil of none.
    ///
    /// The smallest firewall timeout counts; where values were given explicitly, also the smallest idle time and
    /// interval that any of them leads to. A number of probes and a user timeout only end a connection: there
    /// the largest counts, so that no rule makes another's connection end sooner. Keepalive that one wants
    /// off and another on is on.
    static func strictest(_ requests: [KeepaliveRequest]) -> KeepaliveRequest? {
        let enabling = requests.filter(\.wanted.enabled)
        let counted = enabling.isEmpty ? requests : enabling
        guard counted.count > 1, let firewallTimeout = counted.map(\.firewallTimeout).min() else {
            return counted.first
        }
        let isExact = counted.contains(where: \.isExact)
        return KeepaliveRequest(
            firewallTimeout: firewallTimeout,
            idle: isExact ? counted.map { Int($0.wanted.idle) }.min() : nil,
            interval: isExact ? counted.map { Int($0.wanted.interval) }.min() : nil,
            count: counted.compactMap(\.explicitCount).max(),
            userTimeout: counted.compactMap(\.wanted.userTimeout).max().map(Int.init),
            enabled: !enabling.isEmpty)
    }
}

/// What the caller wants of every candidate.
package struct KeepaliveRequest: Hashable, BitwiseCopyable, Sendable {
    /// The idle time after which the firewall forgets a connection.
    package let firewallTimeout: Seconds
    /// The values that follow from the firewall's timeout and from explicit options.
    package let wanted: Wanted
    /// A value was given explicitly: all three values are exact, not upper bounds.
    package let isExact: Bool
    let explicitCount: Int?

    package struct Wanted: Hashable, BitwiseCopyable, Sendable {
        package let enabled: Bool
        package let idle: Int32
        package let interval: Int32
        package let count: Int32
        /// Milliseconds; nil does not change TCP_USER_TIMEOUT.
        package let userTimeout: Int32?
    }

    package static let defaultFirewallTimeout = Seconds(3600)
    /// Below 4 s, an idle time and two intervals of whole seconds do not fit.
    package static let minFirewallTimeout = Seconds(4)

    /// Derives the missing values: idle = T/6, interval = T/60, and enough probes to fill the rest of T. So keepalive
    /// never ends a connection sooner than the firewall would.
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
        // An explicit idle time of T or more leaves no rest to fill. One lost probe must not end the connection, so the
        // number of probes then follows from the derived idle time.
        let rest = total - (idleTime < total ? idleTime : total / 6)
        let derived = (rest + between - 1) / between
        // The marker of a running probe is avoided. One probe more never ends a connection sooner.
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
    /// One request that satisfies all of them; nil if there is none.
    ///
    /// It takes the smallest firewall timeout. If values were given explicitly, it also takes the smallest idle time
    /// and interval that any request leads to. The number of probes and the user timeout only end a connection: it
    /// takes the largest, so that no rule ends the connection of another rule sooner. If one request wants keepalive
    /// off and another on, it is on.
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

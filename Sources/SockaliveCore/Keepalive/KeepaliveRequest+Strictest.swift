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

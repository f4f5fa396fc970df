/// When the third probe leaves, and whether TCP_USER_TIMEOUT ends the connection before. Pure.
///
/// The keepalive timer fires after TCP_KEEPIDLE, and then after each TCP_KEEPINTVL. Without an answer, the third probe
/// leaves when the connection has been idle for TCP_KEEPIDLE + 2 × TCP_KEEPINTVL. If a user timeout is set, the kernel
/// does not count probes. It resets the connection when the timer fires, a probe is outstanding, and the connection has
/// been idle for at least the user timeout (net/ipv4/tcp_timer.c, tcp_keepalive_timer: `elapsed >= icsk_user_timeout
/// && icsk_probes_out > 0`). So a user timeout up to TCP_KEEPIDLE + TCP_KEEPINTVL makes one lost probe the end.
extension KeepaliveSettings {
    /// Even if one probe is lost, the next one comes before the firewall's deadline.
    package func isTimely(against firewallTimeout: Seconds) -> Bool { thirdProbe < firewallTimeout }

    /// How long the connection has been idle when the third unanswered probe leaves.
    var thirdProbe: Seconds { Seconds(Int(idle) + 2 * Int(interval)) }

    /// The user timeout resets the connection instead of sending the third probe.
    package var endsBeforeThirdProbe: Bool {
        enabled && userTimeout > 0 && Int(userTimeout) <= thirdProbe.count * 1000
    }

    /// The user timeout in words, a part of a second rounded up.
    package var userTimeoutText: String { "\(Seconds((Int(userTimeout) + 999) / 1000))" }
}

/// A user timeout that ends a connection too early.
package struct UserTimeoutRisk: Equatable, Sendable {
    package let message: String
    package let remedy: String

    /// nil where the user timeout ends nothing early.
    package init?(_ settings: KeepaliveSettings, against firewallTimeout: Seconds) {
        guard settings.endsBeforeThirdProbe else { return nil }
        message =
            "TCP_USER_TIMEOUT of \(settings.userTimeoutText) ends the connection before its third unanswered probe, "
            + "which leaves after \(settings.thirdProbe)"
        // With the firewall's timeout, keepalive gives up no sooner than the firewall.
        let enough = max(firewallTimeout, Seconds(settings.thirdProbe.count + 1))
        remedy = "give it \(enough) with --user-timeout \(enough)"
    }

    /// The one line for people.
    package var line: String { "\(message); \(remedy)" }
}

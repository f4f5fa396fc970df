import ArgumentParser
import SockaliveCore

/// Which keepalive, and how to reach the socket. D is `90`, `90s`, `15m`, `2h` or `1h30m`.
struct KeepaliveOptions: ParsableArguments {
    @Option(
        help: .init("The firewall forgets a connection idle for so long (default: 60m).", valueName: "d"),
        transform: ArgumentTransform.firewallTimeout)
    var firewallTimeout: Seconds?

    @Option(
        help: .init("Idle time before the first probe, exactly.", valueName: "d"),
        transform: ArgumentTransform.keepaliveSeconds)
    var idle: Int?

    @Option(
        help: .init("Time between probes, exactly.", valueName: "d"),
        transform: ArgumentTransform.keepaliveSeconds)
    var interval: Int?

    @Option(
        help: .init("Unanswered probes before the connection is given up, exactly.", valueName: "n"),
        transform: ArgumentTransform.keepaliveCount)
    var count: Int?

    @Option(
        help: .init("Also set TCP_USER_TIMEOUT.", valueName: "d"),
        transform: ArgumentTransform.userTimeout)
    var userTimeout: Int?

    @Flag(help: "Turn keepalive off again.")
    var off = false

    @Option(help: .init("How to reach the socket: auto, pidfd or ptrace.", valueName: "method"))
    var method: MethodChoice?

    func validate() throws {
        if off && (idle != nil || interval != nil || count != nil || userTimeout != nil) {
            throw ValidationError("--off turns keepalive off: leave out --idle, --interval, --count and --user-timeout")
        }
    }

    var isGiven: Bool {
        firewallTimeout != nil || idle != nil || interval != nil || count != nil || userTimeout != nil || off
            || method != nil
    }

    var request: KeepaliveRequest {
        KeepaliveRequest(
            firewallTimeout: firewallTimeout ?? KeepaliveRequest.defaultFirewallTimeout,
            idle: idle, interval: interval, count: count,
            userTimeout: userTimeout, enabled: !off)
    }
}

extension KeepaliveOptions {
    /// By name, for ``RuleParser``.
    static let setters: [String: OptionSetter<Self>] = [
        "--firewall-timeout": .value { $0.firewallTimeout = try ArgumentTransform.firewallTimeout($1) },
        "--idle": .value { $0.idle = try ArgumentTransform.keepaliveSeconds($1) },
        "--interval": .value { $0.interval = try ArgumentTransform.keepaliveSeconds($1) },
        "--count": .value { $0.count = try ArgumentTransform.keepaliveCount($1) },
        "--user-timeout": .value { $0.userTimeout = try ArgumentTransform.userTimeout($1) },
        "--off": .flag { $0.off = true },
        "--method": .value { $0.method = try ArgumentTransform.choice($1) },
    ]
}

extension MethodChoice: ExpressibleByArgument {}

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

extension KeepaliveOptions: PlainOptions {
    static let byDefault: Self = {
        var options = Self()
        (options.firewallTimeout, options.userTimeout) = (nil, nil)
        (options.idle, options.interval, options.count) = (nil, nil, nil)
        (options.off, options.method) = (false, nil)
        return options
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        switch name {
        case "--firewall-timeout": firewallTimeout = try ArgumentTransform.firewallTimeout(value())
        case "--idle": idle = try ArgumentTransform.keepaliveSeconds(value())
        case "--interval": interval = try ArgumentTransform.keepaliveSeconds(value())
        case "--count": count = try ArgumentTransform.keepaliveCount(value())
        case "--user-timeout": userTimeout = try ArgumentTransform.userTimeout(value())
        case "--off": off = true
        case "--method": method = try ArgumentTransform.choice(value())
        default: return false
        }
        return true
    }
}

extension MethodChoice: ExpressibleByArgument {}

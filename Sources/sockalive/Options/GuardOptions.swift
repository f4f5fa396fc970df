import ArgumentParser
import SockaliveCore

/// Which place a guard belongs to: exactly one kind.
struct GuardPlaceOptions: ParsableArguments {
    @Option(
        help: .init("This cgroup, by its path from the root.", valueName: "path"),
        transform: ArgumentTransform.cgroupPath)
    var cgroup: [String] = []

    @Flag(help: "Every process of the machine.")
    var host = false

    func validate() throws {
        guard kinds <= 1 else { throw ValidationError("one kind of place at a time: a guard is for each by itself") }
    }

    private var kinds: Int { (cgroup.isEmpty ? 0 : 1) + (host ? 1 : 0) }

    var isGiven: Bool { kinds > 0 }

    var places: [GuardPlace] {
        (host ? [GuardPlace(.host)] : []) + cgroup.map { GuardPlace(.cgroup($0)) }
    }
}

/// Which keepalive new connections get.
struct GuardKeepaliveOptions: ParsableArguments {
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

    var request: KeepaliveRequest {
        KeepaliveRequest(
            firewallTimeout: firewallTimeout ?? KeepaliveRequest.defaultFirewallTimeout,
            idle: idle, interval: interval, count: count, userTimeout: userTimeout)
    }
}

/// How much is said.
struct GuardOutputOptions: ParsableArguments {
    @Flag(help: "Print nothing but errors.")
    var quiet = false

    func message(_ line: @autoclosure () -> String) {
        if !quiet { StandardStreams.error(line()) }
    }
}

extension ArgumentTransform {
    static func cgroupPath(_ text: String) throws -> String {
        let components = text.split(separator: "/")
        guard text.hasPrefix("/"), !components.contains(".."), !components.contains("."), !text.utf8.contains(0) else {
            throw ValidationError("the path of a cgroup starts with a slash, such as /system.slice/agent.service")
        }
        return "/" + components.joined(separator: "/")
    }
}

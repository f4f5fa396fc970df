import ArgumentParser
import SockaliveCore

/// Which place a guard belongs to: exactly one kind.
struct GuardPlaceOptions: ParsableArguments {
    @Option(
        help: .init("This systemd unit, while it runs.", valueName: "name"),
        transform: GuardPlaceOptions.unit)
    var unit: [GuardPlace] = []

    @Option(
        help: .init("This container.", valueName: "name|id"),
        transform: GuardPlaceOptions.container)
    var container: [GuardPlace] = []

    @Option(
        help: .init("This pod.", valueName: "name|uid"),
        transform: GuardPlaceOptions.pod)
    var pod: [GuardPlace] = []

    @Option(
        help: .init("Every cgroup of such a path, with all below.", valueName: "glob"),
        transform: GuardPlaceOptions.cgroup)
    var cgroup: [GuardPlace] = []

    @Flag(help: "Every process of the machine.")
    var host = false

    func validate() throws {
        guard kinds <= 1 else { throw ValidationError("one kind of place at a time: a guard is for each by itself") }
    }

    private var lists: [[GuardPlace]] { [unit, container, pod, cgroup, host ? [GuardPlace(.host)] : []] }

    private var kinds: Int { lists.count { !$0.isEmpty } }

    var isGiven: Bool { kinds > 0 }

    var places: [GuardPlace] { lists.flatMap(\.self) }

    @Sendable private static func unit(_ text: String) throws -> GuardPlace {
        guard let unit = UnitName(written: text) else {
            throw ValidationError("a unit is given by its name: agent, agent.service, or agent@1 of a template")
        }
        guard !unit.isSlice else { throw ValidationError("a slice has no unit of its own: use --cgroup with its path") }
        return GuardPlace(.unit(unit))
    }

    @Sendable private static func container(_ text: String) throws -> GuardPlace {
        guard !text.isEmpty, !text.contains("/") else {
            throw ValidationError("a container is given by its name, or by its ID from 12 digits on")
        }
        return GuardPlace(.container(text))
    }

    @Sendable private static func pod(_ text: String) throws -> GuardPlace {
        guard !text.isEmpty else {
            throw ValidationError("a pod is given by its name, or by its UID from 12 digits on")
        }
        return GuardPlace(.pod(text))
    }

    @Sendable private static func cgroup(_ text: String) throws -> GuardPlace {
        guard text.hasPrefix("/"), let glob = CGroupGlob(text) else {
            throw ValidationError("a cgroup is given by its path from the root, such as /system.slice/agent*")
        }
        return GuardPlace(.cgroup(glob))
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

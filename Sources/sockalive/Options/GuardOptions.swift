import ArgumentParser
import SockaliveCore

/// Which place a guard belongs to: exactly one kind.
struct GuardPlaceOptions: ParsableArguments {
    @Option(help: .init("This systemd unit, while it runs.", valueName: "name"), transform: ArgumentTransform.unit)
    var unit: [UnitName] = []

    @Option(help: .init("This container.", valueName: "name|id"), transform: ArgumentTransform.container)
    var container: [ContainerSelector] = []

    @Option(help: .init("This pod.", valueName: "name|uid"), transform: ArgumentTransform.pod)
    var pod: [PodSelector] = []

    @Option(
        help: .init("Every cgroup of such a path, with all below.", valueName: "glob"),
        transform: ArgumentTransform.cgroup)
    var cgroup: [CGroupGlob] = []

    @Flag(help: "Every process of the machine.")
    var host = false

    func validate() throws {
        guard kinds <= 1 else { throw ValidationError("one kind of place at a time: a guard is for each by itself") }
        guard places.allSatisfy({ $0.words.utf8.count <= GuardPlace.maxWords }) else {
            throw ValidationError(
                "a place has at most \(GuardPlace.maxWords) bytes: use a pattern, as in --cgroup '/a*'")
        }
    }

    private var kinds: Int { [!unit.isEmpty, !container.isEmpty, !pod.isEmpty, !cgroup.isEmpty, host].count { $0 } }

    var isGiven: Bool { kinds > 0 }

    var places: [GuardPlace] {
        host
            ? [.host]
            : unit.map { GuardPlace(unit: $0) } + container.map { GuardPlace(container: $0) }
                + pod.map { GuardPlace(pod: $0) } + cgroup.map { GuardPlace(cgroup: $0) }
    }

    /// Which processes are meant, for what looks at connections that are there already.
    var processes: ProcessSelection {
        ProcessSelection(
            anyProcess: host,
            places: PlaceSelection(units: unit, containers: container, pods: pod, cgroups: cgroup))
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

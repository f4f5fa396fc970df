import ArgumentParser
import SockaliveCore

/// Which sockets: the same words for list, inject, probe and watch.
struct SelectionOptions: ParsableArguments {
    @Option(
        help: .init("Match this comm or executable base name (default: beremote).", valueName: "name"),
        transform: ArgumentTransform.processName)
    var process: [String] = []

    @Flag(help: "Match every process.")
    var anyProcess = false

    @Option(
        help: .init("Match this process, whatever its name.", valueName: "pid"),
        transform: ArgumentTransform.pid)
    var pid: [Int32] = []

    @Option(
        help: .init("Match only processes whose executable is exactly this path.", valueName: "path"),
        transform: ArgumentTransform.absolutePath)
    var exe: String?

    @Option(
        help: .init("Match only processes of this user, a name or a number.", valueName: "user"),
        transform: ArgumentTransform.user)
    var user: UInt32?

    @Option(
        help: .init("Match only processes of this systemd unit.", valueName: "name"),
        transform: ArgumentTransform.unit)
    var unit: [UnitName] = []

    @Option(
        help: .init("Match only processes of this container.", valueName: "name|id"),
        transform: ArgumentTransform.container)
    var container: [ContainerSelector] = []

    @Option(
        help: .init("Match only processes of this pod.", valueName: "name|uid"),
        transform: ArgumentTransform.pod)
    var pod: [PodSelector] = []

    @Option(
        help: .init("Match only processes below a cgroup of such a path.", valueName: "glob"),
        transform: ArgumentTransform.cgroup)
    var cgroup: [CGroupGlob] = []

    @Option(
        help: .init("Match only processes with this whole argument, or the base name of one.", valueName: "text"),
        transform: ArgumentTransform.command)
    var command: [String] = []

    @Option(
        help: .init("Match this local or remote port (default: 5633).", valueName: "n"),
        transform: ArgumentTransform.port)
    var port: [UInt16] = []

    @Flag(help: "Match every port.")
    var anyPort = false

    @Option(
        help: .init("Match only peers in this range.", valueName: "address[/prefix][%interface]"),
        transform: ArgumentTransform.range)
    var remote: AddressRange?

    @Flag(help: "Also match LISTEN sockets: what they accept from then on inherits keepalive.")
    var listeners = false

    @Flag(help: "Also match half-closed connections: FIN_WAIT2 and CLOSE_WAIT.")
    var halfClosed = false

    @Option(help: .init("Where the sockets are looked up: auto, procfs or diag.", valueName: "source"))
    var source: SocketSource?

    func validate() throws {
        if anyProcess && !(process.isEmpty && pid.isEmpty) {
            throw ValidationError("--any-process already matches every process: leave out --process and --pid")
        }
        try ports.validate()
    }

    private var ports: PortChoice { PortChoice(ports: port, isAny: anyPort) }

    var isGiven: Bool {
        !(process.isEmpty && pid.isEmpty && port.isEmpty) || anyProcess || anyPort || listeners || halfClosed
            || exe != nil || user != nil || remote != nil || source != nil || !places.isEmpty || !command.isEmpty
    }

    private var places: PlaceSelection {
        PlaceSelection(units: unit, containers: container, pods: pod, cgroups: cgroup)
    }

    /// Without any of these the default name selects.
    private var selectsByItself: Bool { exe != nil || !places.isEmpty || !command.isEmpty }

    var selection: Selection {
        let namesDefault = process.isEmpty && pid.isEmpty && !selectsByItself && !anyProcess
        return Selection(
            processes: ProcessSelection(
                names: namesDefault ? ["beremote"] : process, pids: Set(pid), anyProcess: anyProcess,
                executable: exe, uid: user, places: places, commands: command),
            sockets: SocketSelection(
                ports: ports.numbers, remote: remote, listeners: listeners,
                halfClosed: halfClosed))
    }

    /// What was looked for, in words.
    var description: String {
        var processes = process.isEmpty && pid.isEmpty ? (anyProcess ? "any process" : "process beremote") : ""
        if selectsByItself && process.isEmpty && pid.isEmpty { processes = "any process" }
        let names = process.map { "process \(UntrustedText($0).escaped)" } + pid.map { "PID \($0)" }
        processes += names.joined(separator: " or ")
        if let exe { processes += " with executable \(UntrustedText(exe).escaped)" }
        if let user { processes += " of user \(user)" }
        for (kind, names) in [
            ("of unit", unit.map(\.description)), ("in container", container.map(\.description)),
            ("in pod", pod.map(\.description)), ("in cgroup", cgroup.map(\.description)), ("with argument", command),
        ] where !names.isEmpty {
            processes += " \(kind) " + names.map { UntrustedText($0).escaped }.joined(separator: " or ")
        }
        let peer = remote.map { " to \($0)" } ?? ""
        let states = ["established"] + (halfClosed ? ["half-closed"] : []) + (listeners ? ["listening"] : [])
        return "\(processes), \(states.joined(separator: " or "))\(peer), \(ports.words)"
    }
}

/// What `--port` and `--any-port` say, also together with other options than those of a selection.
struct PortChoice {
    let ports: [UInt16]
    let isAny: Bool

    private static let byDefault: UInt16 = 5633

    func validate() throws {
        guard isAny && !ports.isEmpty else { return }
        throw ValidationError("--any-port already matches every port: leave out --port")
    }

    /// nil is any.
    var numbers: Set<UInt16>? { isAny ? nil : Set(ports.isEmpty ? [Self.byDefault] : ports) }

    var words: String {
        isAny
            ? "any port"
            : "port " + (ports.isEmpty ? [Self.byDefault] : ports).map(String.init).joined(separator: " or ")
    }
}

extension SelectionOptions: PlainOptions {
    static let byDefault: Self = {
        var options = Self()
        (options.process, options.pid, options.command, options.port) = ([], [], [], [])
        (options.unit, options.container, options.pod, options.cgroup) = ([], [], [], [])
        (options.exe, options.user, options.remote, options.source) = (nil, nil, nil, nil)
        (options.anyProcess, options.anyPort) = (false, false)
        (options.listeners, options.halfClosed) = (false, false)
        return options
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        switch name {
        case "--process": process.append(try ArgumentTransform.processName(value()))
        case "--any-process": anyProcess = true
        case "--pid": pid.append(try ArgumentTransform.pid(value()))
        case "--exe": exe = try ArgumentTransform.absolutePath(value())
        case "--user": user = try ArgumentTransform.user(value())
        case "--unit": unit.append(try ArgumentTransform.unit(value()))
        case "--container": container.append(try ArgumentTransform.container(value()))
        case "--pod": pod.append(try ArgumentTransform.pod(value()))
        case "--cgroup": cgroup.append(try ArgumentTransform.cgroup(value()))
        case "--command": command.append(try ArgumentTransform.command(value()))
        case "--port": port.append(try ArgumentTransform.port(value()))
        case "--any-port": anyPort = true
        case "--remote": remote = try ArgumentTransform.range(value())
        case "--listeners": listeners = true
        case "--half-closed": halfClosed = true
        case "--source": source = try ArgumentTransform.choice(value())
        default: return false
        }
        return true
    }
}

extension SocketSource: ExpressibleByArgument {}

import ArgumentParser
import SockaliveCore

/// `sockalive guard`: new connections get their keepalive from the kernel, from birth.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "guard",
        abstract: "Give every new connection of a unit, a container or the host its keepalive from birth.",
        discussion: """
            A program in the kernel does it, and stays until "guard off" or the end of the machine; nothing polls. \
            Connections that are there already stay as they are: inject serves them. Linux 5.9 and newer.
            """,
        subcommands: [GuardOnCommand.self, GuardOffCommand.self, GuardStatusCommand.self])
}

struct GuardOnCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "on", abstract: "Guard a place, or give its guard other values.")

    @OptionGroup var place: GuardPlaceOptions
    @OptionGroup var keepalive: GuardKeepaliveOptions
    @OptionGroup var output: GuardOutputOptions

    @Option(
        help: .init("Match this local or remote port (default: 5633).", valueName: "n"),
        transform: ArgumentTransform.port)
    var port: [UInt16] = []

    @Flag(help: "Match every port.")
    var anyPort = false

    @Flag(help: "Also where a program has turned keepalive on itself.")
    var override = false

    @Option(
        help: .init("The whole run takes no longer (default: 10s).", valueName: "d"),
        transform: ArgumentTransform.seconds)
    var timeout = RunOptions.defaultTimeout

    func validate() throws {
        guard place.isGiven else {
            throw ValidationError("name a place: --unit, --container, --pod, --cgroup or --host")
        }
        try ports.validate()
    }

    private var ports: PortChoice { PortChoice(ports: port, isAny: anyPort) }

    func run() throws {
        HardLimit.arm(timeout, cause: cause)
        for warning in keepalive.request.warnings { output.message(warning) }
        try reportGuardFailure {
            let run = try GuardRun(makes: true)
            var failures: [GuardFailure] = []
            for place in place.places {
                do throws(GuardFailure) {
                    let (results, notes) = try run.turnOn(
                        place, ports: ports.numbers, keepalive.request, overrides: override)
                    for text in results.map(line) + notes { output.message(text) }
                } catch {
                    StandardStreams.error("\(UntrustedText(place.words).escaped): \(error.line)")
                    failures.append(error)
                }
            }
            if failures.count < place.places.count { tellOfExisting() }
            try throwIfFailed(failures, of: place.places.count)
        }
    }

    /// A guard leaves connections alone that are there already, and so does this: it only looks.
    private func tellOfExisting() {
        guard !output.quiet else { return }
        let selection = Selection(processes: place.processes, sockets: SocketSelection(ports: ports.numbers))
        let job = RunJob(
            mode: .keepalive(.list), rules: RuleSet([Rule(selection: selection, request: keepalive.request)]),
            choice: .auto, source: .auto, explainsAbsence: false)
        let run = SupervisedRun(
            job: job, control: RunControl(limit: timeout), limit: timeout, before: [], whileWaiting: {},
            rememberHung: { _ in })
        guard let outcome = try? run.outcome(progress: { _ in }) else {
            return output.message("the connections that are there already could not be looked at")
        }
        let count = outcome.results.count { $0.after?.enabled == false }
        guard count > 0 else { return }
        let words = place.host ? "--any-process" : place.places.map(\.words).joined(separator: " ")
        let portWords = anyPort ? " --any-port" : port.map { " --port \($0)" }.joined()
        let these =
            count == 1 ? "1 connection that is there already is" : "\(count) connections that are there already are"
        output.message(
            "\(these) without keepalive: sockalive inject \(UntrustedText(words).escaped)\(portWords) serves "
                + (count == 1 ? "it" : "them"))
    }

    private func line(_ result: GuardRun.Result) -> String {
        let wanted = keepalive.request.wanted
        let values = "\(wanted.idle)/\(wanted.interval)/\(wanted.count)"
        let state = result.change == .unchanged ? "as before, " : ""
        let cgroup = UntrustedText(result.path).escaped
        return "\(cgroup): \(state)new connections on \(ports.words) get keepalive \(values)"
            + (override ? ", in any case" : "")
    }
}

struct GuardOffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "off", abstract: "End the guard of a place.")

    @OptionGroup var place: GuardPlaceOptions
    @OptionGroup var output: GuardOutputOptions

    @Flag(help: "End all guards.")
    var all = false

    func validate() throws {
        guard all != place.isGiven else { throw ValidationError("name a place, or --all: one of them") }
    }

    func run() throws {
        HardLimit.arm(RunOptions.defaultTimeout, cause: cause)
        try reportGuardFailure {
            let run = try GuardRun(makes: false)
            var removed: [GuardState] = []
            for place in all ? [nil] : place.places.map(Optional.some) { removed += try run.turnOff(place) }
            for state in removed { output.message("\(state.title): the guard has ended") }
            if removed.isEmpty { output.message("there is no such guard") }
        }
    }
}

struct GuardStatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show each guarded place, its values, and how many connections it treated.")

    @Flag(help: "Print one JSON document.")
    var json = false

    func run() throws {
        HardLimit.arm(RunOptions.defaultTimeout, cause: cause)
        try reportGuardFailure {
            let guards = try GuardRun(makes: false).states()
            let isWritten: Bool
            if json {
                isWritten = GuardStatusReport(guards).write { StandardStreams.output($0) }
            } else {
                if guards.isEmpty { StandardStreams.error("there is no guard") }
                isWritten = StandardStreams.output(GuardTable(guards).text)
            }
            guard isWritten else {
                StandardStreams.error("standard output is closed or full: the report is lost")
                throw RunStatus.someFailed
            }
        }
    }
}

/// What a command may be waiting for.
private let cause =
    "another run of guard keeps the lock on /sys/fs/bpf/sockalive, or the kernel does not answer: look whether one hangs"

/// Runs `body`; a failure becomes one line on standard error and the exit code that belongs to it.
private func reportGuardFailure(_ body: () throws -> Void) throws {
    do {
        try body()
        HardLimit.disarm()
    } catch let failure as GuardFailure {
        StandardStreams.error(failure.line)
        throw failure.status
    }
}

extension GuardState {
    /// How it is called in messages.
    var title: String { UntrustedText(place.isEmpty ? "a guard of another version" : place).escaped }
}

private func throwIfFailed(_ failures: [GuardFailure], of count: Int) throws {
    guard let first = failures.first else { return }
    let isAll = failures.count == count && failures.allSatisfy { $0.kind == first.kind }
    throw isAll ? first.status : .someFailed
}

extension GuardFailure {
    var status: RunStatus {
        switch kind {
        case .permission: .noPermission
        case .unsupported: .unsupported
        case .other: .someFailed
        }
    }
}

import ArgumentParser
import SockaliveCore
import SockaliveDemo

/// `sockalive demo`: one connection that a firewall drops, and one that injection keeps.
struct DemoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Show a firewall drop an idle connection, and injection save another.",
        discussion: """
            Two hosts and a firewall of real connection tracking are made in namespaces of their own; nothing \
            outside is touched, and nothing is left. Root is not needed where the kernel allows user namespaces. \
            It takes about 13 seconds.
            """
    )

    @OptionGroup var options: DemoOptions

    func run() throws {
        do { try RunError.refuseOldKernel() } catch { throw error.printed() }
        try reportDemoFailure {
            try Tool.all()
            let code = try DemoNamespaces.run(options.arguments)
            throw RunStatus(rawValue: code) ?? .someFailed
        }
    }
}

/// The first process inside the namespaces: it prints everything.
struct DemoStageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: DemoNamespaces.commandName, shouldDisplay: false)

    @OptionGroup var options: DemoOptions

    func run() throws {
        try reportDemoFailure {
            try DemoNamespaces.setUp()
            let screen = Screen(style: StandardStreams.outputStyle, output: StandardStreams.output)
            let outcome = try DemoRunner(method: options.method, screen: options.json ? nil : screen).run()
            if options.json { try screen.write(JSONOutput.text(DemoReport(outcome))) }
            guard outcome.isAsExpected else { throw RunStatus.someFailed }
        }
    }
}

/// The host of the agent, in a network namespace of its own.
struct DemoAgentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: DemoAgent.commandName, shouldDisplay: false)

    func run() throws {
        try reportDemoFailure { try DemoAgent.run() }
    }
}

/// The host of the backup server, in a network namespace of its own.
struct DemoServerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: DemoServer.commandName, shouldDisplay: false)

    func run() throws {
        try reportDemoFailure { try DemoServer.run() }
    }
}

/// The options of the demo; the outer process hands them on to the inner one.
struct DemoOptions: ParsableArguments {
    @Option(help: .init("How to reach the socket: auto, pidfd or ptrace.", valueName: "method"))
    var method: MethodChoice?

    @Flag(help: "Print one JSON document instead of the story.")
    var json = false

    /// The same options as words of a command line.
    var arguments: [String] {
        (method.map { ["--method", $0.rawValue] } ?? []) + (json ? ["--json"] : [])
    }
}

/// Runs `body`; a failure becomes one line on standard error and the exit code that belongs to it.
private func reportDemoFailure(_ body: () throws -> Void) throws {
    do {
        try body()
    } catch is ParentGone {
        throw RunStatus.someFailed
    } catch {
        guard let failure = DemoFailure(error) else { throw error }
        StandardStreams.error("demo: \(failure.line)")
        throw failure.status
    }
}

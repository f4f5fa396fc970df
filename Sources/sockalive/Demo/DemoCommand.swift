import ArgumentParser
import SockaliveCore

/// `sockalive demo`: a connection dropped without, and kept by, injection; on this machine, before one's eyes.
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
        try DemoFailure.report {
            try Tool.all()
            let code = try DemoNamespaces.run(["demo-stage"] + options.arguments)
            throw RunStatus(rawValue: code) ?? .someFailed
        }
    }
}

/// What the demo hands on to the commands that it shows.
struct DemoOptions: ParsableArguments {
    @Option(help: .init("How to reach the socket: auto, pidfd or ptrace.", valueName: "method"))
    var method: MethodChoice?

    @Flag(help: "Print one JSON document instead of the story.")
    var json = false

    /// As they stand on a command line.
    var arguments: [String] {
        methodArguments + (json ? ["--json"] : [])
    }

    var methodArguments: [String] {
        method.map { ["--method", $0.rawValue] } ?? []
    }
}

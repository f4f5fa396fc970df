import ArgumentParser
import Glibc
import SockaliveCore

@main
struct Sockalive: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sockalive",
        abstract: "Turns TCP keepalive on inside the live connections of a running process.",
        discussion: """
            A firewall forgets a connection that carries no packets for an hour, and the backup that relied on it \
            fails. sockalive finds such connections and gives them keepalive, without a restart.
            """,
        version: "sockalive \(sockaliveVersion)",
        subcommands: [
            ListCommand.self, InjectCommand.self, ProbeCommand.self, WatchCommand.self,
            GuardCommand.self,
            DoctorCommand.self, DoctorTarget.self,
            DemoCommand.self, DemoStageCommand.self, DemoAgentCommand.self, DemoServerCommand.self,
        ]
    )

    static func main() {
        ProcessStartup.end()
        StandardStreams.reserve()
        // Swift's runtime reads the command line in /proc/self/cmdline.
        guard CommandLine.argc > 0 else { Glibc.exit(RunError.noProc.printed().rawValue) }
        do {
            var command = try directly(CommandLine.arguments.dropFirst()) ?? parseAsRoot()
            try command.run()
        } catch let status as RunStatus {
            Glibc.exit(status.rawValue)
        } catch {
            exit(reporting: error)
        }
    }

    /// The command that is named first: what cron runs is parsed plainly, the others as if they were the only ones. The
    /// way over the root asks Swift's runtime for so many more types that a run on a busy host takes a tenth longer; so
    /// does the search for `--generate-completion-script`, which a command with a `_superCommandName` is spared.
    ///
    /// - Returns: nil for any other line. The root judges those, so that help and errors are what they always are.
    private static func directly(_ arguments: ArraySlice<String>) -> (any ParsableCommand)? {
        let words = arguments.dropFirst()
        let plain: (any ParsableCommand)? =
            switch arguments.first {
            case "list": ListCommand.plainly(words)
            case "inject": InjectCommand.plainly(words)
            case "probe": ProbeCommand.plainly(words)
            default: nil
            }
        if let plain { return plain }
        let command = configuration.subcommands.first { $0.configuration.commandName == arguments.first }
        return try? command?.parse(Array(words))
    }

    /// Help and version are answers; anything else was a wrong command line: one line, exit 64.
    private static func exit(reporting error: any Error) -> Never {
        guard exitCode(for: error) != .success else {
            let isWritten = StandardStreams.output(fullMessage(for: error) + "\n")
            Glibc.exit(isWritten ? 0 : RunStatus.someFailed.rawValue)
        }
        let line = message(for: error).split(whereSeparator: \.isNewline).joined(separator: " ")
        // The words of the command line stand in it, and a script may have put anything there.
        StandardStreams.error("\(UntrustedText(line).escaped) (see sockalive --help)")
        Glibc.exit(RunStatus.usage.rawValue)
    }
}

extension RunStatus: Error {}

import ArgumentParser
import SockaliveCore

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        _superCommandName: "sockalive",
        abstract: "Show candidate sockets, their keepalive, and whether the firewall would drop them.")

    @OptionGroup var selection: SelectionOptions
    @OptionGroup var keepalive: KeepaliveOptions
    @OptionGroup var config: ConfigOptions
    @OptionGroup var output: OutputOptions

    @Flag(help: "Exit 1 if some candidate is not protected.")
    var check = false

    @Option(
        help: .init("The whole run takes no longer (default: 10s).", valueName: "d"),
        transform: ArgumentTransform.seconds)
    var timeout = RunOptions.defaultTimeout

    func run() throws {
        let control = RunControl.begin(limit: timeout)
        let configuration = try config.runConfiguration(selection, keepalive)
        let run = Run(
            command: "list", mode: .keepalive(.list), configuration: configuration, output: output, control: control,
            limit: timeout, limits: nil)
        throw try run.execute(check: check)
    }
}

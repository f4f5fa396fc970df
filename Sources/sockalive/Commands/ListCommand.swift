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

extension ListCommand: PlainOptions {
    static let byDefault: Self = {
        var command = Self()
        (command.selection, command.keepalive) = (.byDefault, .byDefault)
        (command.config, command.output) = (.byDefault, .byDefault)
        (command.check, command.timeout) = (false, RunOptions.defaultTimeout)
        return command
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        switch name {
        case "--check": check = true
        case "--timeout": timeout = try ArgumentTransform.seconds(value())
        default:
            return try output.set(name, value) || config.set(name, value) || selection.set(name, value)
                || keepalive.set(name, value)
        }
        return true
    }

    mutating func validateGroups() throws {
        try selection.validate()
        try keepalive.validate()
        try output.validate()
    }
}

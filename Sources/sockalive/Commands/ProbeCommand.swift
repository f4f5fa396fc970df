import ArgumentParser
import SockaliveCore

struct ProbeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        _superCommandName: "sockalive",
        abstract: "Prove that every candidate's peer still answers, by one keepalive probe each.")

    @OptionGroup var selection: SelectionOptions
    @OptionGroup var keepalive: KeepaliveOptions
    @OptionGroup var config: ConfigOptions
    @OptionGroup var limits: RunOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var waiting: WaitOptions

    func run() throws {
        RunControl.catchSignals()
        let control = RunControl.begin(limit: limits.timeout)
        let configuration = try config.runConfiguration(selection, keepalive)
        let run = Run(
            command: "probe", mode: .probe(waiting.time), configuration: configuration, output: output,
            control: control, limit: limits.timeout, limits: limits,
            summary: { "\(Reporter.candidates($0.results)): \(Reporter.answersAndFailures($0))" })
        throw try run.execute()
    }
}

extension ProbeCommand: PlainOptions {
    static let byDefault: Self = {
        var command = Self()
        (command.selection, command.keepalive) = (.byDefault, .byDefault)
        (command.config, command.limits) = (.byDefault, .byDefault)
        (command.output, command.waiting) = (.byDefault, .byDefault)
        return command
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        try output.set(name, value) || limits.set(name, value) || config.set(name, value)
            || selection.set(name, value) || keepalive.set(name, value) || waiting.set(name, value)
    }

    mutating func validateGroups() throws {
        try selection.validate()
        try keepalive.validate()
        try limits.validate()
        try output.validate()
    }
}

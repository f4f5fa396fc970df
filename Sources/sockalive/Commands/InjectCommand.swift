import ArgumentParser
import SockaliveCore

struct InjectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inject",
        _superCommandName: "sockalive",
        abstract: "Give every candidate socket the keepalive that it needs.")

    @OptionGroup var selection: SelectionOptions
    @OptionGroup var keepalive: KeepaliveOptions
    @OptionGroup var config: ConfigOptions
    @OptionGroup var limits: RunOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var waiting: WaitOptions

    @Flag(help: "Print what would be done, and touch nothing.")
    var dryRun = false

    @Flag(help: "Then prove each path, as the command probe does.")
    var probe = false

    func validate() throws {
        if dryRun && probe { throw ValidationError("--dry-run touches nothing, and a probe does: leave out one") }
        if waiting.wait != nil && !probe { throw ValidationError("--wait is for --probe") }
    }

    func run() throws {
        RunControl.catchSignals()
        let control = RunControl.begin(limit: limits.timeout)
        let configuration = try config.runConfiguration(selection, keepalive)
        configuration.warnIfTooSlow(Reporter(output: output))
        let mode: RunJob.Mode = probe ? .injectAndProbe(waiting.time) : .keepalive(dryRun ? .dryRun : .inject)
        let run = Run(
            command: "inject", mode: mode, configuration: configuration, output: output, control: control,
            limit: limits.timeout, limits: limits, summary: summary)
        throw try run.execute()
    }

    private func summary(_ outcome: RunOutcome) -> String {
        let results = outcome.results
        let summary = Summary(results, outcome.failures)
        let notSeen = summary.unknown > 0 ? ", \(summary.unknown) unknown without a stop of the target" : ""
        let done = dryRun ? "\(summary.wouldSet) would be set\(notSeen)" : "\(summary.set) set"
        let proof = probe ? ", \(Reporter.answers(results))" : ""
        return "\(Reporter.candidates(results)): \(done), \(summary.unchanged) unchanged, \(summary.failed) failed"
            + proof
    }
}

extension InjectCommand: PlainOptions {
    static let byDefault: Self = {
        var command = Self()
        (command.selection, command.keepalive) = (.byDefault, .byDefault)
        (command.config, command.limits) = (.byDefault, .byDefault)
        (command.output, command.waiting) = (.byDefault, .byDefault)
        (command.dryRun, command.probe) = (false, false)
        return command
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        switch name {
        case "--dry-run": dryRun = true
        case "--probe": probe = true
        default:
            return try output.set(name, value) || limits.set(name, value) || config.set(name, value)
                || selection.set(name, value) || keepalive.set(name, value) || waiting.set(name, value)
        }
        return true
    }

    mutating func validateGroups() throws {
        try selection.validate()
        try keepalive.validate()
        try limits.validate()
        try output.validate()
    }
}

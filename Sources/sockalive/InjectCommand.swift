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
        let configuration = try config.runConfiguration(selection, keepalive)
        RunControl.catchSignals()
        let reporter = Reporter(output: output)
        let recorder = RunRecorder(limits, reporter)
        configuration.warnIfTooSlow(reporter)
        // A dry run changes nothing, so it neither waits for nor stops a run that does.
        let lock = dryRun || limits.noLock ? nil : try HeldLock.take(limits.lock, reporter)
        let run = Run(
            command: "inject",
            mode: probe ? .injectAndProbe(waiting.time) : .keepalive(dryRun ? .dryRun : .inject),
            configuration: configuration, output: output)
        let outcome = try run.execute(limit: limits.timeout, recorder: dryRun ? nil : recorder)
        let results = outcome.results
        let isRecorded = dryRun || recorder.record(results)
        withExtendedLifetime(lock) {}
        guard outcome.isWritten else { throw RunStatus.someFailed }
        summarize(results, configuration, reporter)
        throw RunStatus(results: results, require: limits.require).failed(unless: isRecorded)
    }

    private func summarize(_ results: [SocketResult], _ configuration: RunConfiguration, _ reporter: Reporter) {
        limits.reportAbsence(results, configuration, output)
        guard !results.isEmpty && !output.json else { return }
        let would = results.count { $0.action == .wouldSet }
        let summary = Summary(results)
        let done = dryRun ? "\(would) would be set" : "\(summary.set) set"
        let proof = probe ? ", \(reporter.answers(results))" : ""
        reporter.message(
            "\(reporter.candidates(results)): \(done), \(summary.unchanged) unchanged, \(summary.failed) failed"
                + proof)
    }
}

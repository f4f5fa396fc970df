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
        let configuration = try config.runConfiguration(selection, keepalive)
        RunControl.catchSignals()
        let reporter = Reporter(output: output)
        let recorder = RunRecorder(limits, reporter)
        let lock = limits.noLock ? nil : try HeldLock.take(limits.lock, reporter)
        let run = Run(
            command: "probe", mode: .probe(waiting.time), configuration: configuration, output: output)
        let outcome = try run.execute(limit: limits.timeout, recorder: recorder)
        let results = outcome.results
        let isRecorded = recorder.record(results)
        withExtendedLifetime(lock) {}
        guard outcome.isWritten else { throw RunStatus.someFailed }
        limits.reportAbsence(results, configuration, output)
        if !results.isEmpty && !output.json {
            reporter.message("\(reporter.candidates(results)): \(reporter.answers(results))")
        }
        throw RunStatus(results: results, require: limits.require).failed(unless: isRecorded)
    }
}

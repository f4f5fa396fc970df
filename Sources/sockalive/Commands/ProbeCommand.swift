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
            control: control, limit: limits.timeout, limits: limits)
        throw try run.execute { "\(Reporter.candidates($0.results)): \(Reporter.answersAndFailures($0))" }
    }
}

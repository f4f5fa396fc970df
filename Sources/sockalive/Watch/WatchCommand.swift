import ArgumentParser
import SockaliveCore

struct WatchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch",
        abstract: "Inject over and over, in the foreground, until stopped.")

    @OptionGroup var selection: SelectionOptions
    @OptionGroup var keepalive: KeepaliveOptions
    @OptionGroup var config: ConfigOptions
    @OptionGroup var limits: RunOptions
    @OptionGroup var output: OutputOptions

    @Option(
        help: .init("How often (default: 5s).", valueName: "d"),
        transform: ArgumentTransform.seconds)
    var every = Seconds(5)

    func validate() throws {
        if limits.require { throw ValidationError("--require is for one run: a watch waits for candidates") }
        if output.json { throw ValidationError("--json is one document: a watch has no end to write it at") }
    }

    func run() throws {
        let configuration = try config.runConfiguration(selection, keepalive)
        RunControl.catchSignals()
        RunControl.wakeOnHangup()
        let reporter = Reporter(output: output)
        configuration.warnIfTooSlow(reporter)
        var watch = Watch(configuration: configuration, config: config, limits: limits, reporter: reporter)
        try watch.run(every: every)
    }
}

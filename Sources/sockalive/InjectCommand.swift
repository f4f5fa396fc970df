import ArgumentParser
import SockaliveCore

struct InjectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inject",
        _superCommandName: "sockalive",
        abstract: "Give every candidate socket the keepalive that it needs.")

    @OptionGroup var selection: SelectionOptions
    @OptionGroup var keepalive: KeepaliveOptions
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
        let reporter = Reporter(output: output)
        warnIfTooSlow(reporter)
        // A dry run changes nothing, so it neither waits for nor stops a run that does.
        let lock = dryRun || limits.noLock ? nil : try HeldLock.take(limits.lock, reporter)
        let journey = Journey(
            command: "inject",
            work: probe ? .injectAndProbe(waiting.time) : .keepalive(dryRun ? .dryRun : .inject),
            selection: selection, keepalive: keepalive, output: output)
        let results = try journey.run(limit: limits.timeout)
        withExtendedLifetime(lock) {}
        guard let results else { throw RunStatus.someFailed }
        summarize(results, reporter)
        throw RunStatus(results: results, require: limits.require)
    }

    /// Explicit values are obeyed, also where they do not help.
    private func warnIfTooSlow(_ reporter: Reporter) {
        let request = keepalive.request
        let wanted = request.wanted
        let settings = KeepaliveSettings(
            enabled: true, idle: wanted.idle, interval: wanted.interval, count: wanted.count)
        guard wanted.enabled, settings.verdict(against: request.firewallTimeout) != .protected else { return }
        reporter.message(
            "idle \(wanted.idle)s and two intervals of \(wanted.interval)s are not below the firewall's timeout of "
                + "\(request.firewallTimeout): the connection may be dropped; choose a shorter --idle")
    }

    private func summarize(_ results: [SocketResult], _ reporter: Reporter) {
        limits.reportAbsence(results, selection, output)
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

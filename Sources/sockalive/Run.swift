import SockaliveCore

/// The steps that `list`, `inject` and `probe` share: select, discover, plan, apply, report.
struct Run {
    enum Mode {
        case keepalive(KeepaliveRun.Mode)
        case probe(Seconds)
        case injectAndProbe(Seconds)
    }

    struct Outcome {
        let results: [SocketResult]
        /// False if the answer could not be written to standard output.
        let isWritten: Bool
    }

    let command: String
    let mode: Mode
    let configuration: RunConfiguration
    let output: OutputOptions

    /// What `watch` repeats: select, discover, apply; the telling is up to the caller.
    static func round(
        _ configuration: RunConfiguration, _ control: RunControl, _ reporter: Reporter
    ) throws(RunError) -> [SocketResult] {
        let found = try Finding(configuration, control)
        return KeepaliveRun(
            procfs: found.procfs, mode: .inject, rules: configuration.rules, choice: configuration.method
        )
        .results(for: found.snapshot, stopReason: { control.stopReason }, progress: reporter.step)
    }

    /// - Parameters:
    ///   - limit: how long the whole run may take; nil is without end.
    ///   - recorder: where it is kept why the run cannot do its work at all, if anywhere.
    func execute(limit: Seconds?, recorder: RunRecorder? = nil) throws -> Outcome {
        let reporter = Reporter(output: output)
        let control = RunControl(limit: limit)
        do throws(RunError) {
            let found = try Finding(configuration, control)
            let (processes, sockets) = (found.snapshot.processes.count, found.snapshot.sockets.count)
            reporter.step("\(processes) matching processes, \(sockets) sockets")
            let results = execute(on: found, control, reporter)
            return Outcome(results: results, isWritten: report(results, found, reporter))
        } catch {
            recorder?.record(error)
            throw error.printed()
        }
    }

    private func execute(on found: Finding, _ control: RunControl, _ reporter: Reporter) -> [SocketResult] {
        let line = ProgressLine(output)
        defer { line.clear() }
        let (procfs, snapshot) = (found.procfs, found.snapshot)
        func apply(_ mode: KeepaliveRun.Mode) -> [SocketResult] {
            KeepaliveRun(procfs: procfs, mode: mode, rules: configuration.rules, choice: configuration.method)
                .results(for: snapshot, stopReason: { control.stopReason }, progress: reporter.step)
        }
        func probe(_ wait: Seconds) -> ProbeRun {
            ProbeRun(procfs: procfs, snapshot: snapshot, choice: configuration.method, wait: wait, control: control)
        }
        switch mode {
        case .keepalive(let mode): return apply(mode)
        case .probe(let wait):
            let results = probe(wait).results(for: snapshot, configuration.rules, procfs, progress: line.update)
            results.forEach(reporter.step)
            return results
        case .injectAndProbe(let wait):
            let results = probe(wait).proving(apply(.inject), progress: line.update)
            results.forEach(reporter.proof)
            return results
        }
    }

    private var isDryRun: Bool {
        if case .keepalive(.dryRun) = mode { true } else { false }
    }

    private var isProbed: Bool {
        if case .keepalive = mode { false } else { true }
    }

    private func report(_ results: [SocketResult], _ found: Finding, _ reporter: Reporter) -> Bool {
        let report = RunReport(
            command: command, dryRun: isDryRun, isProbed: isProbed, rules: configuration.rules, results: results)
        let isWritten = reporter.answer(results, report)
        if !isWritten { StandardStreams.error("standard output is closed or full: the report is lost") }
        if results.isEmpty && !output.quiet { explainAbsence(found) }
        reporter.failures(results)
        reporter.silence(results)
        return isWritten
    }

    private func explainAbsence(_ found: Finding) {
        // What several rules have in common says nothing about any of them.
        let reason =
            configuration.rules.rules.count == 1
            ? found.discovery.absenceReason(found.snapshot, configuration.rules.union) : AbsenceReason.unknown
        AbsenceText(lookedFor: configuration.description, reason: reason).lines.forEach(StandardStreams.error)
    }
}

import ArgumentParser
import SockaliveCore
import SystemPackage

/// The road that `list`, `inject` and `probe` share: select, discover, plan, apply, report.
struct Journey {
    enum Work {
        case keepalive(KeepaliveRun.Mode)
        case probe(Seconds)
        case injectAndProbe(Seconds)
    }

    let command: String
    let work: Work
    let selection: SelectionOptions
    let keepalive: KeepaliveOptions
    let output: OutputOptions

    /// - Parameter limit: how long the whole run may take; nil is without end.
    /// - Returns: nil if the answer could not be written to standard output.
    func run(limit: Seconds?) throws -> [SocketResult]? {
        let reporter = Reporter(output: output)
        let control = RunControl(limit: limit)
        do {
            let procfs = try ProcFS()
            guard procfs.isOwn else {
                StandardStreams.error(
                    "/proc shows another PID namespace: mount this one's, or join that one (nsenter -p)")
                throw RunStatus.unsupported
            }
            let discovery = Discovery(
                procfs: procfs, source: selection.source, method: keepalive.method.resolved())
            let snapshot = try discovery.snapshot(of: selection.selection)
            reporter.step("\(snapshot.processes.count) matching processes, \(snapshot.sockets.count) sockets")
            let results = carryOut(on: snapshot, procfs, control, reporter)
            return report(results, snapshot, discovery, reporter) ? results : nil
        } catch let failure as SourceFailure {
            StandardStreams.error(failure.line)
            throw failure.isPermission ? RunStatus.noPermission : .unsupported
        } catch let error as Errno {
            StandardStreams.error("/proc cannot be read (\(error)): mount it, or run where it is mounted")
            throw RunStatus.unsupported
        }
    }

    private func carryOut(
        on snapshot: Snapshot, _ procfs: ProcFS, _ control: RunControl, _ reporter: Reporter
    ) -> [SocketResult] {
        let line = ProgressLine(output)
        defer { line.clear() }
        func apply(_ mode: KeepaliveRun.Mode) -> [SocketResult] {
            KeepaliveRun(procfs: procfs, mode: mode, request: keepalive.request, choice: keepalive.method)
                .results(for: snapshot, mayGoOn: { control.stopReason }, progress: reporter.step)
        }
        func probe(_ wait: Seconds) -> ProbeRun {
            ProbeRun(procfs: procfs, snapshot: snapshot, choice: keepalive.method, wait: wait, control: control)
        }
        switch work {
        case .keepalive(let mode): return apply(mode)
        case .probe(let wait):
            let results = probe(wait).results(for: snapshot, progress: line.update)
            results.forEach(reporter.step)
            return results
        case .injectAndProbe(let wait):
            let results = probe(wait).proving(apply(.inject), progress: line.update)
            results.forEach(reporter.proof)
            return results
        }
    }

    private var isDryRun: Bool {
        if case .keepalive(.dryRun) = work { true } else { false }
    }

    private var isProbed: Bool {
        if case .keepalive = work { false } else { true }
    }

    private func report(
        _ results: [SocketResult], _ snapshot: Snapshot, _ discovery: Discovery, _ reporter: Reporter
    ) -> Bool {
        let report = RunReport(
            command: command, dryRun: isDryRun, isProbed: isProbed, request: keepalive.request, results: results)
        let isWritten = reporter.answer(results, report, keepalive.firewallTimeout)
        if !isWritten { StandardStreams.error("standard output is closed or full: the report is lost") }
        if results.isEmpty && !output.quiet {
            let reason = discovery.absenceReason(snapshot, selection.selection)
            AbsenceText(lookedFor: selection.description, reason: reason).lines.forEach(StandardStreams.error)
        }
        reporter.failures(results)
        reporter.silence(results)
        return isWritten
    }
}

import ArgumentParser
import SockaliveCore
import SystemPackage

/// The road that `list` and `inject` share: select, discover, plan, apply, report.
struct Journey {
    let command: String
    let mode: KeepaliveRun.Mode
    let selection: SelectionOptions
    let keepalive: KeepaliveOptions
    let output: OutputOptions

    /// - Parameter limit: how long the whole run may take; nil is without end.
    /// - Returns: nil if the answer could not be written to standard output.
    func run(limit: Seconds?) throws -> [SocketResult]? {
        let reporter = Reporter(output: output)
        let control = limit.map { RunControl(limit: $0) }
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
            let run = KeepaliveRun(procfs: procfs, mode: mode, request: keepalive.request, choice: keepalive.method)
            let results = run.results(for: snapshot, mayGoOn: { control?.stopReason }, progress: reporter.step)
            return report(results, snapshot, discovery, reporter) ? results : nil
        } catch let failure as SourceFailure {
            StandardStreams.error(failure.line)
            throw failure.isPermission ? RunStatus.noPermission : .unsupported
        } catch let error as Errno {
            StandardStreams.error("/proc cannot be read (\(error)): mount it, or run where it is mounted")
            throw RunStatus.unsupported
        }
    }

    private func report(
        _ results: [SocketResult], _ snapshot: Snapshot, _ discovery: Discovery, _ reporter: Reporter
    ) -> Bool {
        let isWritten = reporter.answer(
            results, command: command, dryRun: mode == .dryRun, request: keepalive.request)
        if !isWritten { StandardStreams.error("standard output is closed or full: the report is lost") }
        if results.isEmpty && !output.quiet {
            let reason = discovery.absenceReason(snapshot, selection.selection)
            AbsenceText(lookedFor: selection.description, reason: reason).lines.forEach(StandardStreams.error)
        }
        reporter.failures(results)
        return isWritten
    }
}

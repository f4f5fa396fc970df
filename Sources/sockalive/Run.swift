import Glibc
import SockaliveCore
import SystemPackage

/// One run of `list`, `inject`, `probe`, and one round of `watch`.
///
/// Five values are handed on: selection → snapshot → plan → outcome → report. The first three lines of ``results``
/// make the first three; `KeepaliveRun` makes each socket's plan from what it reads and carries it out while the socket
/// is reached once; `report` is the last.
struct Run {
    enum Mode {
        case keepalive(KeepaliveRun.Mode)
        case probe(Seconds)
        case injectAndProbe(Seconds)

        var isDryRun: Bool {
            if case .keepalive(.dryRun) = self { true } else { false }
        }

        var isProbe: Bool {
            if case .keepalive = self { false } else { true }
        }

        /// Only one run at a time may change sockets. A run that changes none neither waits for nor stops another.
        var needsLock: Bool {
            switch self {
            case .keepalive(let mode): mode == .inject
            case .probe, .injectAndProbe: true
            }
        }
    }

    let command: String
    let mode: Mode
    let configuration: RunConfiguration
    let output: OutputOptions
    /// nil: no lock, no time limit, no record.
    let limits: RunOptions?

    private var reporter: Reporter { Reporter(output: output) }

    /// From the lock to the exit code.
    ///
    /// - Parameter summary: the last line of a run that found something, for people.
    func execute(check: Bool = false, summary: ([SocketResult]) -> String? = { _ in nil }) throws -> RunStatus {
        let recorder = limits.map { RunRecorder($0, reporter) }
        let lock = try mode.needsLock ? limits.flatMap { try lockOrPrintedError($0) } : nil
        defer { withExtendedLifetime(lock) {} }
        let control = RunControl(limit: limits?.timeout)
        do throws(RunError) {
            let (found, results) = try results(control)
            let isWritten = report(results, found)
            let isRecorded = mode.isDryRun || recorder?.record(results) ?? true
            guard isWritten else { return .someFailed }
            limits?.reportAbsence(results, configuration, output)
            if !results.isEmpty && !output.json, let line = summary(results) { reporter.message(line) }
            return RunStatus(results: results, require: limits?.require ?? false, check: check)
                .failed(unless: isRecorded)
        } catch {
            if !mode.isDryRun { recorder?.record(error) }
            throw error.printed()
        }
    }

    /// What became of each candidate.
    func results(_ control: RunControl) throws(RunError) -> (found: Found, results: [SocketResult]) {
        let selection = configuration.rules.union
        let found = try discover(selection, control)
        return (found, apply(to: found, control))
    }

    struct Found {
        let procfs: ProcFS
        let discovery: Discovery
        let snapshot: Snapshot
    }

    private func discover(_ selection: Selection, _ control: RunControl) throws(RunError) -> Found {
        OpenFiles.raiseLimit()
        do {
            let procfs = try ProcFS()
            guard procfs.isOwn else { throw RunError.foreignNamespace }
            let discovery = Discovery(
                procfs: procfs, source: configuration.source, method: configuration.method.resolved())
            let snapshot = try discovery.snapshot(of: selection, stopReason: { control.stopReason })
            reporter.step("\(snapshot.processes.count) matching processes, \(snapshot.sockets.count) sockets")
            return Found(procfs: procfs, discovery: discovery, snapshot: snapshot)
        } catch {
            throw RunError(error)
        }
    }

    private func apply(to found: Found, _ control: RunControl) -> [SocketResult] {
        let line = ProgressLine(output)
        defer { line.clear() }
        let (snapshot, rules, method) = (found.snapshot, configuration.rules, configuration.method)
        func keepalive(_ mode: KeepaliveRun.Mode) -> [SocketResult] {
            KeepaliveRun(procfs: found.procfs, mode: mode, rules: rules, choice: method)
                .results(for: snapshot, stopReason: { control.stopReason }, progress: reporter.step)
        }
        func probe(_ wait: Seconds) -> ProbeRun {
            ProbeRun(procfs: found.procfs, snapshot: snapshot, choice: method, wait: wait, control: control)
        }
        switch mode {
        case .keepalive(let mode): return keepalive(mode)
        case .probe(let wait):
            let results = probe(wait).results(for: snapshot, rules, found.procfs, progress: line.update)
            results.forEach(reporter.step)
            return results
        case .injectAndProbe(let wait):
            let results = probe(wait).proving(keepalive(.inject), progress: line.update)
            results.forEach(reporter.proof)
            return results
        }
    }

    /// - Returns: false where the answer could not be written to standard output.
    private func report(_ results: [SocketResult], _ found: Found) -> Bool {
        let report = RunReport(
            command: command, dryRun: mode.isDryRun, isProbed: mode.isProbe, rules: configuration.rules,
            results: results)
        let isWritten = reporter.answer(results, report)
        if !isWritten { StandardStreams.error("standard output is closed or full: the report is lost") }
        if results.isEmpty && !output.quiet { explainAbsence(found) }
        reporter.failures(results)
        reporter.silence(results)
        return isWritten
    }

    private func explainAbsence(_ found: Found) {
        // What several rules have in common says nothing about any of them.
        let reason =
            configuration.rules.rules.count == 1
            ? found.discovery.absenceReason(found.snapshot, configuration.rules.union) : AbsenceReason.unknown
        AbsenceText(lookedFor: configuration.description, reason: reason).lines.forEach(StandardStreams.error)
    }

    private func lockOrPrintedError(_ limits: RunOptions) throws -> HeldLock? {
        do throws(RunError) {
            return try limits.takeLock(reporter)
        } catch {
            throw error.printed()
        }
    }
}

/// Why a run cannot do its work at all, with what to do about it.
struct RunError: Error {
    let line: String
    let status: RunStatus

    static let foreignNamespace = RunError(
        line: "/proc shows another PID namespace: mount this one's, or join that one (nsenter -p)",
        status: .unsupported)

    static let noProc = RunError(Errno.noSuchFileOrDirectory)

    init(line: String, status: RunStatus) {
        self.line = line
        self.status = status
    }

    /// Prints why, for a run that ends by it.
    func printed() -> RunStatus {
        StandardStreams.error(line)
        return status
    }

    fileprivate init(_ error: any Error) {
        switch error {
        case let runError as RunError: self = runError
        case let reason as StopReason: self.init(line: reason.searchLine, status: .someFailed)
        case let failure as SourceFailure:
            self.init(line: failure.line, status: failure.isPermission ? .noPermission : .unsupported)
        case Errno.tooManyOpenFiles:
            self.init(
                line: "more processes match than this one may open files: raise the limit (ulimit -Hn), "
                    + "or name the processes more exactly with --user or --pid",
                status: .someFailed)
        default:
            self.init(
                line: "/proc cannot be read (\(error)): mount it, or run where it is mounted", status: .unsupported)
        }
    }
}

/// A lock that is held for as long as this lives: ``RunLock`` cannot stand in an optional that is passed on.
final class HeldLock {
    private let lock: RunLock

    init(_ lock: consuming RunLock) {
        self.lock = lock
    }
}

extension RunOptions {
    /// nil with `--no-lock`, and where the folder of the default is missing.
    func takeLock(_ reporter: Reporter) throws(RunError) -> HeldLock? {
        if noLock { return nil }
        guard let file = lock ?? Self.defaultLock else {
            reporter.step("no lock: XDG_RUNTIME_DIR is not set")
            return nil
        }
        do throws(Errno) {
            return HeldLock(try RunLock(path: file))
        } catch .wouldBlock {
            throw RunError(
                line: "another run holds the lock \(UntrustedText(file).escaped): wait for it to end", status: .locked)
        } catch {
            if lock == nil && error == .noSuchFileOrDirectory {
                reporter.step("no lock: \(file) cannot be created")
                return nil
            }
            throw RunError(
                line: "the lock file \(UntrustedText(file).escaped) cannot be opened (\(error)): "
                    + "name another with --lock, or use --no-lock",
                status: .usage)
        }
    }

    static var defaultLock: String? {
        if geteuid() == 0 { return "/run/sockalive.lock" }
        guard let folder = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }), !folder.isEmpty else { return nil }
        return "\(folder)/sockalive.lock"
    }
}

import Glibc
import SockaliveCore
import SystemPackage

/// One run of `list`, `inject`, `probe`, and one round of `watch`.
///
/// Five values are handed on: selection → snapshot → plan → outcome → report. A worker process makes the first four
/// (`RunJob`): only that one touches targets. This process takes the lock, keeps the time (`SupervisedRun`) and gives
/// the report.
struct Run {
    let command: String
    let mode: RunJob.Mode
    let configuration: RunConfiguration
    let output: OutputOptions
    /// The time that it may take, counted from the first line of the configuration on.
    let control: RunControl
    let limit: Seconds
    /// nil: no lock, no record.
    let limits: RunOptions?
    /// The last line of a run that found something, for people.
    var summary: (RunOutcome) -> String? = { _ in nil }

    private var reporter: Reporter { Reporter(output: output) }

    /// From the lock to the exit code.
    func execute(check: Bool = false) throws -> RunStatus {
        let recorder = limits.map { RunRecorder($0, reporter, configuration.rules) }
        do throws(RunError) {
            let (outcome, isRecorded) = try outcomeUnderLock(recorder)
            // The process ends behind this: to free twenty thousand results one by one would only take time.
            Self.last = outcome
            // Whoever reads the report may take as long as they like.
            HardLimit.disarm()
            RunControl.releaseSignals()
            guard report(outcome) else { return .someFailed }
            limits?.reportAbsence(outcome.results, configuration, output)
            if !outcome.results.isEmpty && !output.json, let line = summary(outcome) { reporter.message(line) }
            let status = RunStatus(
                results: outcome.results, processFailures: outcome.failures, require: limits?.require ?? false,
                check: check)
            return status.failed(unless: isRecorded)
        } catch {
            if !mode.isDryRun { recorder?.record(error) }
            throw error.printed()
        }
    }

    nonisolated(unsafe) private static var last: RunOutcome?

    private func outcomeUnderLock(_ recorder: RunRecorder?) throws(RunError) -> (RunOutcome, isRecorded: Bool) {
        let lock = mode.needsLock ? try limits?.takeLock(reporter) : nil
        defer { withExtendedLifetime(lock) {} }
        let outcome = try outcome(before: hungBefore, rememberHung: rememberHung)
        rememberHung(outcome.hung)
        return (outcome, mode.isDryRun || recorder?.record(outcome) ?? true)
    }

    /// What became of each candidate.
    func outcome(
        before: Set<HungProcess>, whileWaiting: @escaping () -> Void = {},
        rememberHung: @escaping (Set<HungProcess>) -> Void
    ) throws(RunError) -> RunOutcome {
        try RunError.refuseOldKernel()
        let start = bootMilliseconds
        let memory = memoryFile.map { SocketMemory(file: $0) } ?? SocketMemory()
        // A run under the default lock may end meanwhile, and write what it knew.
        forgetDefaultMemory()
        defer { forgetDefaultMemory() }
        let job = RunJob(
            mode: mode, rules: configuration.rules, choice: configuration.method, source: configuration.source,
            explainsAbsence: !output.quiet && command != "watch", readsArguments: output.json, memory: memory,
            memoryFile: memoryFile)
        let run = SupervisedRun(
            job: job, control: control, limit: limit, before: before, tellsEach: output.verbose,
            whileWaiting: whileWaiting,
            rememberHung: rememberHung)
        let line = ProgressLine(output)
        defer { line.clear() }
        do throws(SearchError) {
            let outcome = try run.outcome { progress in
                switch progress {
                case .treated(let result): reporter.step(result)
                case .proved(let result): reporter.proof(result)
                case .probing(let progress): line.update(progress)
                case .step(let text): reporter.step(text)
                }
            }
            if mode.needsLock {
                remember(
                    memory.updated(outcome.results, start: start, defaults: SocketMemory.Defaults()), instead: memory)
            }
            return outcome
        } catch {
            throw RunError(error)
        }
    }

    /// - Returns: false where the answer could not be written to standard output.
    private func report(_ outcome: RunOutcome) -> Bool {
        let results = outcome.results
        let isWritten = reporter.answer(
            results,
            RunReport(
                command: command, dryRun: mode.isDryRun, isProbed: mode.isProbe, rules: configuration.rules,
                results: results, failures: outcome.failures))
        if !isWritten { StandardStreams.error("standard output is closed or full: the report is lost") }
        if let reason = outcome.absence, results.isEmpty && !output.quiet {
            let hasPath = configuration.rules.rules.contains { $0.selection.processes.executable != nil }
            AbsenceText(lookedFor: configuration.description, showsExecutables: hasPath, reason: reason).lines
                .forEach(StandardStreams.error)
        }
        reporter.failures(results)
        reporter.failures(outcome.failures)
        reporter.silence(results)
        if mode.setsKeepalive { reporter.userTimeouts(results) }
        return isWritten
    }

    // MARK: what was read inside targets

    /// Beside the lock: `/run/sockalive.state`. A run without the lock neither trusts nor writes it.
    private var memoryFile: String? {
        limits?.noLock == true ? nil : RunOptions.file(beside: limits?.lock ?? RunOptions.defaultLock, ".state")
    }

    /// What a run without the default lock changes, nobody remembers who holds that one.
    private func forgetDefaultMemory() {
        guard mode.needsLock, let file = RunOptions.file(beside: RunOptions.defaultLock, ".state"), file != memoryFile
        else { return }
        SocketMemory.forget(file)
    }

    private func remember(_ memory: SocketMemory, instead old: SocketMemory) {
        guard let memoryFile, !memory.isAlmost(old) || (access(memoryFile, F_OK) != 0 && !memory.isEmpty) else {
            return
        }
        do throws(Errno) {
            try memory.save(to: memoryFile)
        } catch {
            SocketMemory.forget(memoryFile)
            reporter.step("\(UntrustedText(memoryFile).escaped) cannot be written (\(error)): nothing is remembered")
        }
    }

    // MARK: processes that hang

    /// Beside the lock that guards it: `/run/sockalive.lock`, `/run/sockalive.hung`.
    private var hungFile: String? { HungProcess.file(beside: limits?.lock) }

    var hungBefore: Set<HungProcess> { hungFile.map(HungProcess.read) ?? [] }

    func rememberHung(_ hung: Set<HungProcess>) {
        // Without the lock only what must not be lost: a worker that was left behind is not to be joined by others.
        guard mode.needsLock || hung.contains(where: \.holdsWorker), let hungFile, hung != hungBefore
        else { return }
        do throws(Errno) {
            try HungProcess.write(hung, to: hungFile)
        } catch {
            reporter.step("\(UntrustedText(hungFile).escaped) cannot be written (\(error)): the order is as before")
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

    static let noProc = RunError(.proc(.noSuchFileOrDirectory))

    /// Before anything is looked at: on a kernel on which nothing was tried, nothing is to be harmed.
    static func refuseOldKernel() throws(RunError) {
        let kernel = KernelVersion.running
        guard kernel.isUnsupported else { return }
        throw RunError(
            line: "Linux \(kernel.escaped) is too old: sockalive needs Linux 3.10 (RHEL 7) or newer",
            status: .unsupported)
    }

    init(line: String, status: RunStatus) {
        self.line = line
        self.status = status
    }

    /// Prints why, for a run that ends by it.
    func printed() -> RunStatus {
        StandardStreams.error(line)
        return status
    }

    init(_ error: SearchError) {
        switch error {
        case .foreignNamespace: self = .foreignNamespace
        case .hidden:
            self.init(
                line: "nothing was found, but /proc does not show the processes of other users (hidepid): "
                    + "run as root, or in the group that the mount option gid= names",
                status: .noPermission)
        case .stopped(let reason): self.init(line: reason.searchLine, status: .someFailed)
        case .source(let failure):
            self.init(line: failure.line, status: failure.isPermission ? .noPermission : .unsupported)
        case .noWorker(let error) where error.isOfOpenFiles:
            self.init(
                line: "no process could be started for the work (\(error)): raise the limit of open files (ulimit -n)",
                status: .someFailed)
        case .noWorker(let error):
            self.init(
                line: "no process could be started for the work (\(error)): raise the limit of processes "
                    + "(ulimit -u, TasksMax=), or make memory free",
                status: .someFailed)
        case .workerFailed(let step):
            let remedy =
                step == .socketTable
                ? "run again with --source procfs"
                : "run again, and look which process waits, and for what (ps -eo pid,stat,wchan:32,args)"
            self.init(line: "the work came to no end at \(step.words(0)): \(remedy)", status: .someFailed)
        case .proc(let error) where error.isOfOpenFiles:
            self.init(
                line: "this program may not open enough files for the processes that match: raise the limit "
                    + "(ulimit -Hn), or name the processes more exactly with --user or --pid",
                status: .someFailed)
        case .proc(let error):
            self.init(
                line: "/proc cannot be read (\(error)): mount it, or run where it is mounted", status: .unsupported)
        }
    }
}

extension RunError {
    /// The lock file cannot be opened. Only a path that leads nowhere is a mistake in the command line.
    fileprivate init(lock file: String, _ error: Errno) {
        let other = "name another with --lock, or use --no-lock"
        let (remedy, status): (String, RunStatus) =
            switch error {
            case .notPermitted, .permissionDenied:
                ("it belongs to another user, or its folder does: \(other)", .noPermission)
            case .readOnlyFileSystem:
                ("\(other), or mount a writable /run (docker run --tmpfs /run)", .noPermission)
            case .noSpace, .diskQuotaExceeded: ("make room there, or \(other)", .someFailed)
            case .tooManyOpenFiles, .tooManyOpenFilesInSystem:
                ("raise the limit of open files (ulimit -n, fs.file-max)", .someFailed)
            case .noSuchFileOrDirectory, .notDirectory, .isDirectory, .fileNameTooLong, .tooManySymbolicLinkLevels:
                (other, .usage)
            default: (other, .someFailed)
            }
        self.init(line: "the lock file \(file) cannot be opened (\(error)): \(remedy)", status: status)
    }
}

extension HungProcess {
    /// Beside the lock, which guards it.
    static func file(beside lock: String?) -> String? {
        RunOptions.file(beside: lock ?? RunOptions.defaultLock, ".hung")
    }
}

extension RunControl {
    /// The clock of a run starts, for everything that it does from now on.
    static func begin(limit: Seconds) -> RunControl {
        HardLimit.arm(limit)
        return RunControl(limit: limit)
    }
}

extension RunOptions {
    /// nil with `--no-lock`, and where the folder of the default is missing.
    func takeLock(_ reporter: Reporter) throws(RunError) -> RunLock? {
        if noLock { return nil }
        guard let file = lock ?? Self.defaultLock else {
            reporter.step("no lock: XDG_RUNTIME_DIR is not set")
            return nil
        }
        do throws(Errno) {
            return try RunLock(path: file)
        } catch .wouldBlock {
            throw RunError(
                line: "another run holds the lock \(UntrustedText(file).escaped): wait for it to end", status: .locked)
        } catch {
            if lock == nil && error == .noSuchFileOrDirectory {
                reporter.step("no lock: \(file) cannot be created")
                return nil
            }
            throw RunError(lock: UntrustedText(file).escaped, error)
        }
    }

    /// A file beside the lock, with another ending.
    static func file(beside lock: String?, _ ending: String) -> String? {
        guard let lock else { return nil }
        return (lock.hasSuffix(".lock") ? String(lock.dropLast(5)) : lock) + ending
    }

    static var defaultLock: String? {
        if geteuid() == 0 { return "/run/sockalive.lock" }
        guard let folder = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }), !folder.isEmpty else { return nil }
        return "\(folder)/sockalive.lock"
    }
}

import SystemPackage

/// All that one run does to other processes: it finds the sockets, treats and asks them.
///
/// A worker executes it. Its parent collects what it says, and forks another worker where one hangs.
package struct RunJob: Sendable {
    package enum Mode: Equatable, Sendable {
        case keepalive(KeepaliveRun.Mode)
        case probe(Seconds)
        case injectAndProbe(Seconds)

        package var isDryRun: Bool { self == .keepalive(.dryRun) }

        package var isProbe: Bool {
            if case .keepalive = self { false } else { true }
        }

        /// Only one run at a time may change sockets. A run that changes none neither waits for nor stops another.
        package var needsLock: Bool { ![.keepalive(.list), .keepalive(.dryRun)].contains(self) }

        fileprivate var wait: Seconds? {
            switch self {
            case .keepalive: nil
            case .probe(let wait), .injectAndProbe(let wait): wait
            }
        }
    }

    let mode: Mode
    let rules: RuleSet
    let choice: MethodChoice
    let source: SocketSource
    /// Says why there is no candidate, which costs a walk over all processes.
    let explainsAbsence: Bool

    package init(
        mode: Mode, rules: RuleSet, choice: MethodChoice, source: SocketSource, explainsAbsence: Bool = false
    ) {
        self.mode = mode
        self.rules = rules
        self.choice = choice
        self.source = source
        self.explainsAbsence = explainsAbsence
    }

    /// The worker's side.
    func execute(_ control: RunControl, _ recovery: RunRecovery, send: @escaping (RunEvent) -> Void) {
        OpenFiles.raiseLimit()
        do {
            let procfs: ProcFS
            do {
                procfs = try ProcFS()
            } catch {
                throw SearchError.proc(error as? Errno ?? .ioError)
            }
            guard procfs.isOwn else { throw SearchError.foreignNamespace }
            try Execution(job: self, procfs: procfs, control: control, recovery: recovery, send: send).run()
        } catch let error as SearchError {
            send(.error(error))
        } catch let reason as StopReason {
            send(.error(.stopped(reason)))
        } catch let failure as SourceFailure {
            send(.error(.source(failure)))
        } catch {
            send(.error(.proc(error as? Errno ?? .ioError)))
        }
    }
}

extension RunJob {
    /// One execution in a worker.
    private final class Execution {
        private let job: RunJob
        private let procfs: ProcFS
        private let control: RunControl
        private let recovery: RunRecovery
        private let send: (RunEvent) -> Void
        /// Candidates that were sent.
        private var count = 0
        private var reported: Set<Int32> = []

        init(
            job: RunJob, procfs: ProcFS, control: RunControl, recovery: RunRecovery, send: @escaping (RunEvent) -> Void
        ) {
            self.job = job
            self.procfs = procfs
            self.control = control
            self.recovery = recovery
            self.send = send
        }

        /// Processes that hung before, or whose user has one that does, come last.
        func run() throws {
            let late = recovery.late(procfs)
            try run { !late.contains($0) }
            guard !late.isEmpty else { return }
            do {
                try run { late.contains($0) }
            } catch let reason as StopReason {
                for pid in late.pids { send(.process(failure(pid, .lateUnreached(pid, reason)))) }
            }
        }

        private func run(_ isIncluded: @escaping (Int32) -> Bool) throws {
            let discovery = Discovery(
                procfs: procfs, source: recovery.source ?? job.source,
                method: recovery.source == nil ? job.choice.resolved() : .ptrace,
                limits: ProcessLimits(
                    includes: { [self] pid in isIncluded(pid) && mayBeLookedAt(pid) },
                    hungExecutables: recovery.hungExecutables))
            let selection = job.rules.union
            let snapshot = try discovery.snapshot(of: selection, stopReason: { [control] in control.stopReason })
            send(.found(processes: snapshot.processes.count))
            let candidates = snapshot.assigned(job.rules, procfs).filter { job.isOpen(recovery.known($0.socket)) }
            let first = count
            for candidate in candidates { send(.candidate(candidate)) }
            count += candidates.count
            if candidates.isEmpty && count == 0 && job.explainsAbsence {
                // From here on only an explanation is sought: what hangs in it is no failure.
                send(.absence(.unknown))
                // What several rules have in common says nothing about any of them.
                let reason =
                    job.rules.rules.count == 1
                    ? discovery.absenceReason(snapshot, selection, stopReason: { [control] in control.stopReason })
                    : .unknown
                send(.absence(reason))
            }
            guard !candidates.isEmpty else { return }
            let access = SocketAccess(
                procfs: procfs, choice: job.choice, handles: snapshot.handles, unreachable: recovery.unreachable,
                stopReason: { [control] in control.stopReason })
            treat(candidates, first, access)
        }

        /// A process whose name or links hung is not looked at again in this run.
        private func mayBeLookedAt(_ pid: Int32) -> Bool {
            guard let hang = recovery.excluded[pid] else { return true }
            if reported.insert(pid).inserted { send(.process(failure(pid, hang))) }
            return false
        }

        private func failure(_ pid: Int32, _ failure: SocketFailure) -> ProcessFailure {
            // Of all files of a process in execve(2) these two do not wait.
            let name = try? procfs.read("\(pid)/comm") { UntrustedText($0.dropLast()) }
            return ProcessFailure(pid: pid, name: name, failure: failure)
        }

        private func treat(_ candidates: [AssignedSocket], _ first: Int, _ access: SocketAccess) {
            var results: [SocketResult?]
            switch job.mode {
            case .keepalive(let mode): results = treat(candidates, first, access, mode)
            case .probe: results = candidates.map { _ in nil }
            case .injectAndProbe: results = treat(candidates, first, access, .inject)
            }
            guard let wait = job.mode.wait else { return }
            probe(candidates, first, access, wait, &results)
        }

        private func treat(
            _ candidates: [AssignedSocket], _ first: Int, _ access: SocketAccess, _ mode: KeepaliveRun.Mode
        ) -> [SocketResult?] {
            var results = candidates.map { recovery.known($0.socket) }
            for (index, candidate) in candidates.enumerated() where results[index] == nil {
                results[index] = hung(candidate, isFailedAction: mode != .list)
                if let result = results[index] { send(.result(index: first + index, ResultRecord(result))) }
            }
            let open = results.indices.filter { results[$0] == nil }
            let treated = KeepaliveRun(mode: mode, access: access).results(
                for: open.map { candidates[$0] }, stopReason: { [control] in control.stopReason },
                report: { [send] position, result in
                    send(.result(index: first + open[position], ResultRecord(result)))
                })
            for (index, result) in zip(open, treated) { results[index] = result }
            return results
        }

        /// - Parameter results: what injection made of the sockets; nil where they are only asked.
        private func probe(
            _ candidates: [AssignedSocket], _ first: Int, _ access: SocketAccess, _ wait: Seconds,
            _ results: inout [SocketResult?]
        ) {
            for (index, candidate) in candidates.enumerated() where results[index] == nil {
                guard let result = hung(candidate, isFailedAction: false) else { continue }
                results[index] = result
                send(.result(index: first + index, ResultRecord(result)))
            }
            let asked = candidates.indices.filter { results[$0]?.failure == nil }
            let base = results
            let run = ProbeRun(
                procfs: procfs, access: access, wait: wait, control: control,
                known: { [recovery] in recovery.armed[SocketKey($0)] },
                willArm: { [send] position, found in send(.armed(index: first + asked[position], found)) })
            _ = run.results(
                for: asked.map { candidates[$0].socket },
                progress: { [send] in send(.progress($0)) },
                report: { [send] position, probe in
                    let index = asked[position]
                    var result = base[index] ?? SocketResult(probe, method: run.method)
                    if base[index] != nil { result.add(probe) }
                    send(.result(index: first + index, ResultRecord(result)))
                })
        }

        /// The result of a socket that hung before, and is not touched.
        private func hung(_ candidate: AssignedSocket, isFailedAction: Bool) -> SocketResult? {
            recovery.untouchable[candidate.socket.inode].map {
                SocketResult(socket: candidate.socket, failure: $0, isFailedAction: isFailedAction)
            }
        }
    }

    /// Whether something is still to be done with a socket that an earlier worker has treated.
    private func isOpen(_ result: SocketResult?) -> Bool {
        guard let result else { return true }
        return mode.isProbe && result.probe == nil && result.failure == nil
    }
}

extension SocketFailure {
    fileprivate static func lateUnreached(_ pid: Int32, _ reason: StopReason) -> SocketFailure {
        SocketFailure(
            .other, .timedOut,
            "PID \(pid) was not reached: it, or another process of its user, hung before and comes last",
            remedy: "give it more with --timeout, or leave out what hangs, with --pid, --user or --exe")
    }
}

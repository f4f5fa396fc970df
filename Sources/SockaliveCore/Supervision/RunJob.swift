import Glibc
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

        /// It sets keepalive, or says what it would set.
        package var setsKeepalive: Bool {
            switch self {
            case .keepalive(let mode): mode != .list
            case .probe: false
            case .injectAndProbe: true
            }
        }

        /// Only one run at a time may change sockets. A run that changes none neither waits for nor stops another.
        package var needsLock: Bool { ![.keepalive(.list), .keepalive(.dryRun)].contains(self) }

        fileprivate var setsBeforeProbe: Bool {
            if case .injectAndProbe = self { true } else { false }
        }
    }

    let mode: Mode
    let rules: RuleSet
    let choice: MethodChoice
    let source: SocketSource
    /// Says why there is no candidate, which costs a walk over all processes.
    let explainsAbsence: Bool
    let memory: SocketMemory
    let memoryFile: String?
    /// Reads the arguments of processes that have candidates.
    let readsArguments: Bool

    /// - Parameters:
    ///   - memory: what earlier runs read inside targets.
    ///   - memoryFile: its file.
    package init(
        mode: Mode, rules: RuleSet, choice: MethodChoice, source: SocketSource, explainsAbsence: Bool = false,
        readsArguments: Bool = false, memory: SocketMemory = SocketMemory(), memoryFile: String? = nil
    ) {
        self.mode = mode
        self.rules = rules
        self.choice = choice
        self.source = source
        self.explainsAbsence = explainsAbsence
        self.memory = memory
        self.memoryFile = memoryFile
        self.readsArguments = readsArguments
    }

    /// The worker's side.
    func execute(_ control: RunControl, _ recovery: RunRecovery, send: @escaping (RunEvent) -> Void) {
        do {
            try OpenFiles.raiseLimit()
            let procfs: ProcFS
            do {
                procfs = try ProcFS()
            } catch {
                throw SearchError.proc(error as? Errno ?? .ioError)
            }
            guard procfs.isOwn else { throw SearchError.foreignNamespace }
            let execution = Execution(job: self, procfs: procfs, control: control, recovery: recovery, send: send)
            // The worker ends by _exit(2): to free twenty thousand sockets one by one would only take time.
            _ = Unmanaged.passRetained(execution)
            try execution.run()
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
    fileprivate final class Execution {
        private let job: RunJob
        private let procfs: ProcFS
        private let control: RunControl
        private let stopReason: () -> StopReason?
        private let recovery: RunRecovery
        private let send: (RunEvent) -> Void
        /// Candidates that were sent.
        private var count = 0
        private var failures = 0
        private var reported: Set<Int32> = []
        /// What an earlier search of this worker has found. A socket may be held by processes of two searches.
        private var searched: Set<Int32> = []
        private var found: Set<SocketKey> = []
        /// Not freed before this is.
        private var kept: [(Snapshot, [AssignedSocket])] = []

        init(
            job: RunJob, procfs: ProcFS, control: RunControl, recovery: RunRecovery, send: @escaping (RunEvent) -> Void
        ) {
            self.job = job
            self.procfs = procfs
            self.control = control
            stopReason = { control.stopReason }
            self.recovery = recovery
            self.send = send
        }

        /// Processes that hung before, or hold up the search, or whose user has one that does, come last.
        func run() throws {
            var late = recovery.late(procfs)
            if recovery.asksCommFirst { try runEarly(isByComm: true, &late) }
            try runEarly(&late)
            if !late.isEmpty {
                do {
                    try runLate(late)
                } catch let reason as StopReason {
                    for pid in late.pids { send(.process(failure(pid, .lateUnreached(pid, reason)))) }
                } catch is TooManyLeftBehind {
                    for pid in late.pids where recovery.excluded[pid] == nil {
                        send(.process(failure(pid, .tooManyLeftBehind(pid))))
                        failures += 1
                    }
                }
            }
            // Nothing was found because nothing could be seen.
            if count == 0 && failures == 0 && job.rules.union.alternatives.contains(where: { $0.isHidden(procfs) }) {
                throw SearchError.hidden
            }
        }

        private struct TooManyLeftBehind: Error {}

        /// Searches again without a process that holds up the search, until none does.
        private func runEarly(isByComm: Bool = false, _ late: inout RunRecovery.Late) throws {
            while true {
                do {
                    let others = late
                    // If a socket's lock hung, its process comes last, and the others may be asked as ever.
                    return try run(
                        isByComm: isByComm, isLast: late.isEmpty && !isByComm,
                        borrows: (recovery.source == nil || !late.isEmpty) && !late.areTooMany
                    ) { !others.contains($0) }
                } catch let error as HeldUp {
                    late.add(error)
                    send(.late(error.process))
                }
            }
        }

        private func runLate(_ late: RunRecovery.Late) throws {
            if recovery.isFull { throw TooManyLeftBehind() }
            if recovery.source == nil && !late.holdsUp {
                do {
                    return try run(isLast: true, borrows: true) { late.contains($0) }
                } catch let error as HeldUp {
                    send(.late(error.process))
                }
            }
            try run(isLast: true, borrows: false) { late.contains($0) }
        }

        /// - Parameters:
        ///   - isByComm: only processes whose comm says that they are meant.
        ///   - isLast: what is not found now is not there.
        ///   - borrows: whether sockets may be asked themselves, which waits for their locks.
        private func run(
            isByComm: Bool = false, isLast: Bool = false, borrows: Bool,
            _ isIncluded: @escaping (Int32) -> Bool
        ) throws {
            let limits = ProcessLimits(
                includes: { [self] pid in !searched.contains(pid) && isIncluded(pid) && mayBeLookedAt(pid) },
                excluded: Set(recovery.excluded.keys), hungExecutables: recovery.hungExecutables,
                hungDetails: recovery.hungDetails, leavesOutWhoHoldsUp: true,
                untouchable: Set(recovery.untouchable.keys), isByComm: isByComm)
            let discovery = Discovery(
                procfs: procfs, source: job.source, table: borrows ? recovery.source : .procfs,
                method: borrows ? job.choice.resolved() : .ptrace, limits: limits, readsArguments: job.readsArguments,
                sharing: recovery.sharing)
            let selection = job.rules.union
            let snapshot = try discovery.snapshot(of: selection, stopReason: stopReason)
            for process in snapshot.unanswered where reported.insert(process.pid).inserted {
                let failure = process.failure(in: procfs)
                send(.process(ProcessFailure(pid: process.pid, name: process.name, failure: failure)))
                failures += 1
            }
            var candidates = snapshot.assigned(job.rules, procfs, limits, discovery.places)
            if !isLast || !found.isEmpty || !recovery.isEmpty {
                candidates.removeAll {
                    !job.isOpen(recovery.known($0.socket)) || !found.insert(SocketKey($0.socket)).inserted
                }
            }
            candidates = lookAgain(candidates)
            let first = count
            if !candidates.isEmpty { send(.candidates(candidates, total: candidates.count)) }
            count += candidates.count
            // Behind them: who has heard of the end has all of them.
            send(.found(processes: snapshot.processes.count, isLast: isLast))
            if isLast && candidates.isEmpty && count == 0 && failures == 0 && job.explainsAbsence {
                explainAbsence(searched.union(snapshot.processes).sorted(), discovery.source)
            }
            searched.formUnion(snapshot.processes)
            guard !candidates.isEmpty else { return }
            kept.append((snapshot, candidates))
            let access = SocketAccess(
                procfs: procfs, choice: job.choice, handles: snapshot.handles, unreachable: recovery.unreachable,
                stopReason: stopReason)
            treat(candidates, first, access)
        }

        /// Of all processes, whichever search they belonged to. Nothing is borrowed for it.
        private func explainAbsence(_ processes: [Int32], _ source: SocketSource) {
            // From here on only an explanation is sought: what hangs in it is no failure.
            send(.absence(.unknown))
            // What several rules have in common says nothing about any of them.
            guard job.rules.rules.count == 1 else { return }
            let limits = ProcessLimits(
                includes: { [self] in mayBeLookedAt($0) }, excluded: Set(recovery.excluded.keys),
                hungExecutables: recovery.hungExecutables)
            let discovery = Discovery(procfs: procfs, source: source, method: .ptrace, limits: limits)
            let reason = discovery.absenceReason(processes, job.rules.union, stopReason: stopReason)
            send(.absence(reason))
        }

        /// At what hides a timer, for a short while; unless a look has hung.
        private func lookAgain(_ candidates: [AssignedSocket]) -> [AssignedSocket] {
            guard !job.memory.isEmpty, recovery.source == nil, job.choice.resolved() == .ptrace else {
                return candidates
            }
            return TimerLook(procfs: procfs, memory: job.memory)
                .refreshed(candidates, stopReason: stopReason)
        }

        /// A process whose name or links hung is not looked at again in this run.
        private func mayBeLookedAt(_ pid: Int32) -> Bool {
            guard let hang = recovery.excluded[pid] else { return true }
            if isStranger(pid) { return false }
            if reported.insert(pid).inserted {
                send(.process(failure(pid, hang)))
                failures += 1
            }
            return false
        }

        /// Whether a process that hangs was only looked at because every process is, for the sake of its executable, and
        /// bears no name that any rule means.
        private func isStranger(_ pid: Int32) -> Bool {
            let looksAtAll = job.rules.union.alternatives.contains(where: \.looksAtAll)
            guard looksAtAll || recovery.unknownExecutables.contains(pid) else { return false }
            let comm: [UInt8]
            do {
                comm = try procfs.read("\(pid)/comm") { Array($0.dropLast()) }
            } catch {
                // Gone; or nobody knows whether it is meant.
                return [.noSuchFileOrDirectory, .noSuchProcess].contains(error as? Errno)
            }
            return !job.rules.rules.contains { $0.selection.processes.mayMean(pid, comm: comm[...]) }
        }

        private func failure(_ pid: Int32, _ failure: SocketFailure) -> ProcessFailure {
            // Of all files of a process in execve(2) these two do not wait.
            let name = try? procfs.read("\(pid)/comm") { UntrustedText($0.dropLast()) }
            return ProcessFailure(pid: pid, name: name, failure: failure)
        }

        private func treat(_ candidates: [AssignedSocket], _ first: Int, _ access: SocketAccess) {
            switch job.mode {
            case .keepalive(let mode): treat(candidates, first, access, mode) { _, _ in }
            case .probe(let wait):
                var results = [SocketResult?](repeating: nil, count: candidates.count)
                probe(candidates, first, access, wait, &results)
            case .injectAndProbe(let wait):
                var results = [SocketResult?](repeating: nil, count: candidates.count)
                treat(candidates, first, access, .inject) { results[$0] = $1 }
                probe(candidates, first, access, wait, &results)
            }
        }

        /// - Parameter record: takes each result, for what comes afterwards.
        private func treat(
            _ candidates: [AssignedSocket], _ first: Int, _ access: SocketAccess, _ mode: KeepaliveRun.Mode,
            record: (Int, SocketResult) -> Void
        ) {
            let isFirst = recovery.isEmpty && recovery.untouchable.isEmpty
            let open = candidates.indices.filter { index in
                if isFirst { return true }
                let known = recovery.known(candidates[index].socket)
                guard let result = known ?? hung(candidates[index], isFailedAction: mode != .list) else { return true }
                record(index, result)
                if known == nil { send(.result(index: first + index, ResultRecord(result))) }
                return false
            }
            let isAll = open.count == candidates.count
            KeepaliveRun(
                mode: mode, access: access, untouched: job.untouched(mode, access.method), timeLimit: control.timeLimit,
                sharing: recovery.sharing
            ).treat(
                isAll ? candidates : open.map { candidates[$0] }, stopReason: stopReason,
                slow: { [send] in send(.late($0)) },
                report: { [send] position, result in
                    let index = open[position]
                    record(index, result)
                    send(
                        result.failure != nil && isClosed(candidates[index], result.failure)
                            ? .gone(index: first + index) : .result(index: first + index, ResultRecord(result)))
                })
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
            let untouched = job.untouched(.inject, access.method)
            for index in asked { untouched.willReach(candidates[index].socket) }
            let run = ProbeRun(
                procfs: procfs, access: access, wait: wait, control: control,
                known: { [recovery] in recovery.armed[SocketKey($0)] },
                willArm: { [send] position, found in send(.armed(index: first + asked[position], found)) })
            _ = run.results(
                for: asked.map { candidates[$0].socket }, areTimersCurrent: !job.mode.setsBeforeProbe,
                progress: { [send] in send(.progress($0)) },
                report: { [send] position, probe in
                    let index = asked[position]
                    if isClosed(candidates[index], probe.failure) {
                        // What was set on it stays told.
                        return base[index] == nil ? send(.gone(index: first + index)) : ()
                    }
                    var result = base[index] ?? SocketResult(probe, method: run.method)
                    if base[index] != nil { result.add(probe, method: run.method) }
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

    fileprivate func untouched(_ mode: KeepaliveRun.Mode, _ method: Method) -> UntouchedSockets {
        UntouchedSockets(memory: memory, memoryFile: memoryFile, mode: mode, method: method, choice: choice)
    }

    /// Whether something is still to be done with a socket that an earlier worker has treated.
    private func isOpen(_ result: SocketResult?) -> Bool {
        guard let result else { return true }
        return mode.isProbe && result.probe == nil && result.failure == nil
    }
}

extension RunJob.Execution {
    /// Whether a socket failed because its owner has closed it, or ended.
    fileprivate func isClosed(_ candidate: AssignedSocket, _ failure: SocketFailure?) -> Bool {
        guard let failure else { return false }
        if failure.isClosed { return true }
        return failure.mayBeOfClosed && candidate.socket.sought(in: procfs, stopReason) == nil
    }
}

extension SocketFailure {
    fileprivate var mayBeOfClosed: Bool { ["ESRCH", "ENOENT"].contains(code) }
}

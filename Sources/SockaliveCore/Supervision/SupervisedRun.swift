import Glibc
import SystemPackage

/// What a run found and did.
package struct RunOutcome: Sendable {
    /// How many processes match.
    package internal(set) var processes = 0
    package internal(set) var results: [SocketResult] = []
    /// Matching processes that could not be looked at.
    package internal(set) var failures: [ProcessFailure] = []
    /// nil where it was not asked for, or something was found.
    package internal(set) var absence: AbsenceReason?
    /// Processes that hung; the next run looks at them last.
    package internal(set) var hung: Set<HungProcess> = []
}

/// A run in workers: where one hangs, it is killed, and the next one goes on without what hung.
package struct SupervisedRun {
    /// What happens meanwhile.
    package enum Progress {
        /// One socket was treated, or only asked.
        case treated(SocketResult)
        /// One socket that was treated was asked.
        case proved(SocketResult)
        case probing(ProbeRun.Progress)
        /// A message for `--verbose`.
        case step(String)
    }

    private let job: RunJob
    private let control: RunControl
    private let limit: Seconds
    private let before: Set<HungProcess>
    private let tellsEach: Bool
    private let whileWaiting: () -> Void
    private let rememberHung: (Set<HungProcess>) -> Void

    /// Workers that end by themselves before their work is done, one after the other.
    private static let maxLosses = 3

    /// - Parameters:
    ///   - limit: the time of the whole run.
    ///   - before: processes that hung in the last run; they come last.
    ///   - tellsEach: whether each result is of interest as it comes.
    ///   - whileWaiting: called a few times a second.
    ///   - rememberHung: called with the processes that hung, if the run ends before its search has.
    package init(
        job: RunJob, control: RunControl, limit: Seconds, before: Set<HungProcess> = [],
        tellsEach: Bool = true, whileWaiting: @escaping () -> Void = {},
        rememberHung: @escaping (Set<HungProcess>) -> Void = { _ in }
    ) {
        self.rememberHung = rememberHung
        self.tellsEach = tellsEach
        self.job = job
        self.control = control
        self.limit = limit
        self.before = before
        self.whileWaiting = whileWaiting
    }

    /// What came of it, within the limit and one second, whatever hangs.
    package func outcome(progress: (Progress) -> Void = { _ in }) throws(SearchError) -> RunOutcome {
        var collector = Collector(mode: job.mode, before: before, tellsEach: tellsEach)
        let supervisor = Supervisor(control: control, limit: limit, whileWaiting: whileWaiting)
        var losses = 0
        while true {
            let recovery = collector.recoveryOfNextWorker
            var reader = RunEventReader()
            collector.beginWorker()
            let exit: Supervisor.Exit
            do {
                exit = try supervisor.run(
                    { output in
                        var writer = RunEventWriter(output)
                        job.execute(control, recovery) { writer.send($0) }
                    },
                    receive: { bytes in try reader.read(&bytes) { collector.take($0, progress) } })
            } catch let error as Errno {
                throw .noWorker(error)
            } catch {
                throw .workerFailed(.none)
            }
            if let error = collector.error {
                if case .stopped(let reason) = error { return try collector.stopped(reason, rememberHung) }
                // What an earlier search has set is told.
                guard collector.hasSearched, let failure = error.failure else { throw error }
                return collector.finished(nil, broken: failure)
            }
            switch exit {
            case .done: return collector.finished(nil)
            case .stopped(let reason, let hangs):
                for hang in hangs where hang.position.pid != 0 { collector.add(hang) }
                return try collector.stopped(reason, rememberHung)
            case .hung(let hangs):
                progress(.step("worker killed at \(hangs.map(\.position).words); another goes on without it"))
                let allowsAnother = hangs.map { collector.add($0) }
                if collector.isExplaining { return collector.finished(nil) }
                guard allowsAnother.contains(true) else { return try collector.broken(at: hangs[0].position) }
            case .lost(let position, let end):
                progress(.step("worker \(end) at \(position.step.words(position.pid)); another goes on without it"))
                losses += 1
                if collector.isExplaining { return collector.finished(nil) }
                // If several threads were at work, nobody knows which one is to blame. The next worker has one.
                if position.step == .sharedSockets {
                    collector.workAlone()
                } else {
                    collector.add(position, .lost(position, end))
                }
                guard losses < Self.maxLosses else { return try collector.broken(at: position) }
            }
            if let reason = control.stopReason { return try collector.stopped(reason, rememberHung) }
        }
    }

    /// Puts together what the workers say.
    private struct Collector {
        private let mode: RunJob.Mode
        private let tellsEach: Bool
        private let before: Set<HungProcess>
        private(set) var recovery: RunRecovery
        private var outcome = RunOutcome()
        /// What became of each candidate, or that nothing is known of it yet. They take some megabytes, and are the
        /// outcome in the end: not copied.
        private var results: [SocketResult] = []
        private var isTold: [Bool] = []
        private var gone: Set<Int> = []
        /// nil as long as no socket can be found a second time: by another worker, or in a second search of one.
        private var indexByKey: [SocketKey: Int]?
        private var searches = 0
        /// The present worker's candidates, by its own numbers.
        private var indices: [Int] = []
        private(set) var error: SearchError?
        /// Some worker came to the end of a search.
        private(set) var hasSearched = false
        /// The present one came to the end of the last of its searches.
        private var isSearchOver = false
        /// Processes that hung, and the worker that was left behind there.
        private var hangs: [Int32: HungProcess.Worker?] = [:]
        /// Processes that held up a search.
        private var late: Set<Int32> = []
        /// Processes at which a worker of an earlier run hangs: they need not match.
        private let excludedBefore: Set<Int32>
        private var workers = 0

        init(mode: RunJob.Mode, before: Set<HungProcess>, tellsEach: Bool) {
            self.tellsEach = tellsEach
            self.mode = mode
            self.before = before.filter { !$0.isStranger || $0.isRecent }
            recovery = RunRecovery(before: self.before)
            excludedBefore = Set(recovery.excluded.keys)
        }

        /// All is done but to explain why nothing was found.
        var isExplaining: Bool { outcome.absence != nil }

        mutating func beginWorker() {
            workers += 1
            indices = []
            isSearchOver = false
            outcome.processes = 0
            outcome.failures = []
        }

        mutating func take(_ event: RunEvent, _ progress: (Progress) -> Void) {
            switch event {
            case .found(let processes, let isLast):
                hasSearched = true
                isSearchOver = isLast
                searches += 1
                outcome.processes += processes
                progress(.step("\(processes) matching processes"))
            case .late(let pid): late.insert(pid)
            case .candidates(let new, let total):
                reserve(total)
                for candidate in new { add(candidate) }
            case .result(let number, let record):
                guard indices.indices.contains(number) else { return }
                let index = indices[number]
                results[index].take(record)
                if tellsEach { progress(isTold[index] ? .proved(results[index]) : .treated(results[index])) }
                isTold[index] = true
            case .gone(let number):
                guard indices.indices.contains(number) else { return }
                gone.insert(indices[number])
            case .armed(let number, let settings):
                guard indices.indices.contains(number) else { return }
                recovery.add(armed: settings, of: results[indices[number]].socket)
            case .process(let failure): outcome.failures.append(failure)
            case .progress(let probing): progress(.probing(probing))
            case .absence(let reason): outcome.absence = reason
            case .error(let error): self.error = error
            }
        }

        /// Arrays of twenty thousand that grow are copied, and each copy is new memory.
        private mutating func reserve(_ total: Int) {
            let needed = results.count + min(total, Self.maxReserved)
            guard total > 0, needed > results.capacity else { return }
            results.reserveCapacity(needed)
            isTold.reserveCapacity(needed)
            indices.reserveCapacity(needed)
        }

        private static let maxReserved = 1 << 16

        private mutating func add(_ candidate: AssignedSocket) {
            if workers > 1 || searches > 0 {
                let key = SocketKey(candidate.socket)
                if indexByKey == nil {
                    let keys = results.enumerated().map { (SocketKey($1.socket), $0) }
                    indexByKey = Dictionary(keys, uniquingKeysWith: { first, _ in first })
                }
                if let known = indexByKey?[key] {
                    indices.append(known)
                    return
                }
                indexByKey?[key] = results.count
            }
            indices.append(results.count)
            results.append(SocketResult(candidate, .unreported, isFailedAction: mode != .keepalive(.list)))
            isTold.append(false)
        }

        /// With what came of the sockets so far.
        var recoveryOfNextWorker: RunRecovery {
            var recovery = recovery
            for index in results.indices where isTold[index] { recovery.add(results[index]) }
            return recovery
        }

        @discardableResult
        mutating func add(_ hang: Supervisor.Hang) -> Bool {
            add(hang.position, .hung(hang.position, leftBehind: hang.leftBehind), hang.leftBehind)
        }

        @discardableResult
        mutating func add(_ position: WorkerPosition, _ failure: SocketFailure, _ leftBehind: Int32? = nil) -> Bool {
            let worker = leftBehind.flatMap { HungProcess.Worker(pid: $0, step: position.step) }
            if position.pid != 0 || worker != nil {
                hangs.updateValue(worker ?? hangs[position.pid] ?? nil, forKey: position.pid)
            }
            return recovery.add(position, failure, leftBehind: leftBehind)
        }

        mutating func workAlone() { recovery.workAlone() }

        /// The run is over, whether its worker heard that itself or was killed. The next run begins with what this one has
        /// learned, or it would come no further.
        func stopped(
            _ reason: StopReason, _ rememberHung: (Set<HungProcess>) -> Void
        ) throws(SearchError) -> RunOutcome {
            if isExplaining { return finished(nil) }
            if hasSearched { return finished(reason) }
            rememberHung(hung.union(before.filter(\.isThere)))
            throw .stopped(reason)
        }

        /// No worker comes to the end of its work. What was found and done until then is told, as far as it goes.
        func broken(at position: WorkerPosition) throws(SearchError) -> RunOutcome {
            guard hasSearched else { throw .workerFailed(position.step) }
            return finished(nil, broken: .workerFailed(position))
        }

        /// - Parameters:
        ///   - reason: why what has no result was not reached.
        ///   - broken: the same, if the work came to no end though the time is not up.
        func finished(_ reason: StopReason?, broken: SocketFailure? = nil) -> RunOutcome {
            let interruption = reason?.failure ?? broken
            var outcome = outcome
            outcome.results = results
            for index in results.indices where !isTold[index] {
                outcome.results[index].failure =
                    recovery.failure(of: results[index].socket) ?? interruption ?? .unreported
            }
            if !gone.isEmpty { outcome.results.removeAll(at: gone) }
            // A process that hung when the time was up, before another worker could tell its name.
            let told = excludedBefore.union(outcome.failures.map(\.pid))
            for (pid, failure) in recovery.excluded.sorted(by: { $0.key < $1.key })
            where interruption != nil && !told.contains(pid) {
                outcome.failures.append(ProcessFailure(pid: pid, name: nil, failure: failure))
            }
            if !isSearchOver, let interruption { outcome.failures.append(unsearched(interruption)) }
            // Another worker, and what came last, follow what was found before.
            outcome.results.sortByHolder()
            outcome.hung = hung.union(unproved(outcome, interruption))
            return outcome
        }

        /// Some processes were treated, and others not even found.
        private func unsearched(_ failure: SocketFailure) -> ProcessFailure {
            let known = Set(hangs.keys).union(recovery.hungExecutables).union(before.map(\.pid)).union(late)
            let pids = known.filter { $0 > 0 }
            let others = pids.count > 1 ? " and \(pids.count - 1) others hang or are slow" : " hangs or is slow"
            // No process is to blame if a worker was killed.
            let pid = pids.min() ?? getpid()
            let cause = pids.isEmpty ? "a process of this program was killed" : "PID \(pid)\(others)"
            return ProcessFailure(
                pid: pid, name: nil,
                failure: SocketFailure(
                    failure.kind, code: failure.code,
                    "the search did not come to its end, so nobody knows whether more processes match: "
                        + "\(cause); \(failure.message)",
                    remedy: "end what hangs, or give it more with --timeout"))
        }

        /// Those of the last run that were not reached, because they come last, or not wholly: they are as unproved as
        /// before.
        private func unproved(_ outcome: RunOutcome, _ interruption: SocketFailure?) -> Set<HungProcess> {
            let before = before.filter(\.isThere)
            guard interruption == nil, isSearchOver, !before.isEmpty else { return before }
            let results = outcome.results.filter { $0.failure?.isOfTime == true }
            let failures = outcome.failures.filter { $0.failure.isOfTime }
            let unreached = Set(failures.map(\.pid) + results.map(\.socket.process.pid))
            return before.filter { unreached.contains($0.pid) }
        }

        private var hung: Set<HungProcess> {
            let targets = hangs.map { HungProcess(pid: $0, leftBehind: $1, linkHung: nil) }
            let strangers = recovery.hungExecutables.subtracting(before.map(\.pid)).map(HungProcess.stranger)
            let slow = late.subtracting(hangs.keys).map { HungProcess(pid: $0, leftBehind: nil, linkHung: nil) }
            return Set(targets + slow + strangers + before.filter { $0.isRecent || $0.holdsWorker })
        }
    }
}

extension SearchError {
    /// nil where nothing was searched.
    fileprivate var failure: SocketFailure? {
        switch self {
        case .source(let source): SocketFailure(.other, source.error, source.line, remedy: nil)
        case .proc(let error):
            SocketFailure(.other, error, "/proc could not be read any further (\(error))", remedy: "run again")
        case .foreignNamespace, .stopped, .hidden, .noWorker, .workerFailed: nil
        }
    }
}

extension [WorkerPosition] {
    fileprivate var words: String { map { $0.step.words($0.pid) }.joined(separator: " and ") }
}

extension [SocketResult] {
    fileprivate mutating func removeAll(at places: Set<Int>) {
        self = indices.filter { !places.contains($0) }.map { self[$0] }
    }

    /// By process and number, and behind them those that nobody readable holds.
    fileprivate mutating func sortByHolder() {
        func isBefore(_ one: SocketResult, _ other: SocketResult) -> Bool {
            guard let second = other.socket.holder else { return one.socket.holder != nil }
            return one.socket.holder.map { $0 < second } ?? false
        }
        if indices.dropFirst().contains(where: { isBefore(self[$0], self[$0 - 1]) }) { sort(by: isBefore) }
    }
}

extension SocketFailure {
    /// It was not reached in time, or hung.
    fileprivate var isOfTime: Bool { ["ETIMEDOUT", "ECANCELED"].contains(code) }

    fileprivate static let unreported = SocketFailure(
        .other, .ioError, "its result was lost", remedy: "run again")

    fileprivate static func workerFailed(_ position: WorkerPosition) -> SocketFailure {
        SocketFailure(
            .other, .ioError, "it was not reached: the work came to no end at \(position.step.words(position.pid))",
            remedy: "run again, with --source procfs perhaps")
    }
}

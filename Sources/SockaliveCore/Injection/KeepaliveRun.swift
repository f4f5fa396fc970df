import SystemPackage

/// One pass over the candidates: each is reached, planned for, treated and reported.
package struct KeepaliveRun {
    package enum Mode: Equatable, Sendable {
        /// Reads, and judges by the request.
        case list
        /// Plans, and touches nothing.
        case dryRun
        case inject
    }

    private let mode: Mode
    private let access: SocketAccess
    private let untouched: UntouchedSockets?
    private let sharing: Sharing
    /// What the sockets of one process may take before those of others.
    private let share: Duration

    private static let maxShare = Duration.seconds(2)

    /// - Parameters:
    ///   - untouched: what is known of sockets without access to their processes.
    ///   - timeLimit: that of the whole run; nil is none.
    ///   - sharing: how many threads may treat sockets at a time.
    init(
        mode: Mode, access: SocketAccess, untouched: UntouchedSockets? = nil, timeLimit: Duration? = nil,
        sharing: Sharing = .standard
    ) {
        self.mode = mode
        self.access = access
        self.untouched = untouched
        self.sharing = sharing
        share = min(Self.maxShare, timeLimit.map { $0 / 4 } ?? Self.maxShare)
    }

    /// Treats the candidates in their order. A socket whose first holder keeps the run waiting in vain is tried once
    /// more at the end, so that its other holders cost no other socket its turn. So are the rest of the sockets of a
    /// process, or of an ordinary user, that have taken much time: whoever holds up each call for a while (a socket's
    /// lock, a page that comes late) holds up nobody else.
    ///
    /// - Parameters:
    ///   - stopReason: asked before each socket, by several threads once a millisecond, and never within a socket; a reason
    ///     to stop makes the rest failed.
    ///   - slow: told of each process that has used up its time, in the same way.
    ///   - report: told of each result as it comes, by one thread at a time.
    func treat(
        _ candidates: [AssignedSocket], stopReason: () -> StopReason? = { nil },
        slow: (Int32) -> Void = { _ in }, report: (Int, SocketResult) -> Void
    ) {
        let rest = shareOut(candidates, stopReason, slow, report)
        var waiting = candidates.indices.filter { rest?.isTreated[$0] != true }
        for isLast in [false, true] {
            var shares = (isLast ? nil : rest?.shares) ?? TimeShares(share: share)
            waiting.removeAll { index in
                WorkerProgress.enter(.waiting)
                let (socket, request) = (candidates[index].socket, candidates[index].request)
                if !isLast && shares.areUsedUp(by: socket.process) { return false }
                let start = ContinuousClock.now
                let result =
                    stopReason().map { unreached(socket, $0) }
                    ?? result(for: socket, request, isLast: isLast, met: isLast ? nil : rest?.errors[index])
                if shares.add(.now - start, of: socket.process) { slow(socket.process.pid) }
                guard var result else { return false }
                result.request = request
                result.rule = candidates[index].rule
                report(index, result)
                return true
            }
        }
    }

    /// Treats what several threads can treat at a time; nil if that is too little.
    private func shareOut(
        _ candidates: [AssignedSocket], _ stopReason: () -> StopReason?, _ slow: (Int32) -> Void,
        _ report: (Int, SocketResult) -> Void
    ) -> SharedTreatment.Rest? {
        guard sharing.threads(for: candidates.count) > 1 else { return nil }
        var items: [SharedTreatment.Item] = []
        items.reserveCapacity(candidates.count)
        for index in candidates.indices {
            if let loan = access.loan(of: candidates[index].socket) { items.append(.init(index: index, loan: loan)) }
        }
        let threads = sharing.threads(for: items.count)
        guard threads > 1 else { return nil }
        if mode == .inject { for item in items { untouched?.willReach(candidates[item.index].socket) } }
        let mode = mode
        return candidates.withUnsafeBufferPointer { candidates in
            items.withUnsafeBufferPointer { items in
                SharedTreatment.rest(
                    of: candidates, items, threads: threads, TimeShares(share: share), stopReason: stopReason,
                    treat: { Self.treat(candidates[$0.index], $0.loan, mode, $1) }, slow: slow, report: report)
            }
        }
    }

    private static func treat(
        _ candidate: AssignedSocket, _ loan: Loan, _ mode: Mode, _ thread: WorkerThread
    ) -> SharedTreatment.Outcome {
        let socket = candidate.socket
        switch loan.apply(mode.operation(for: socket, candidate.request), to: socket, thread) {
        case .success(let result):
            var treated = SocketResult(socket, result)
            treated.request = candidate.request
            treated.rule = candidate.rule
            return .treated(treated)
        case .failure(let error): return .failed(error)
        case nil: return .untouched
        }
    }

    /// How long the sockets of one process, and those of one user, have taken.
    struct TimeShares: Sendable {
        let share: Duration
        private var byProcess: [Int32: Duration] = [:]
        private var byUser: [UInt32: Duration] = [:]

        init(share: Duration) { self.share = share }

        /// What most sockets take, and more.
        static let usual = Duration.milliseconds(1)

        /// - Returns: whether the process has used up its share by this.
        mutating func add(_ time: Duration, of process: ProcessIdentity) -> Bool {
            guard time > Self.usual else { return false }
            let before = byProcess[process.pid, default: .zero]
            byProcess[process.pid] = before + time
            byUser[process.uid, default: .zero] += time
            return before <= share && before + time > share
        }

        /// Root's processes are not to wait for one of them.
        func areUsedUp(by process: ProcessIdentity) -> Bool {
            guard !byProcess.isEmpty else { return false }
            return byProcess[process.pid, default: .zero] > share
                || process.uid != 0 && byUser[process.uid, default: .zero] > share
        }
    }

    /// What comes of the candidates, in their order.
    func results(
        for candidates: [AssignedSocket], stopReason: () -> StopReason? = { nil }
    ) -> [SocketResult] {
        var results = [SocketResult?](repeating: nil, count: candidates.count)
        treat(candidates, stopReason: stopReason) { results[$0] = $1 }
        return results.compactMap(\.self)
    }

    /// - Parameter met: what another thread has met, through the first holder.
    /// - Returns: nil if it is to be tried again.
    private func result(
        for socket: DiscoveredSocket, _ request: KeepaliveRequest, isLast: Bool, met: (any Error)?
    ) -> SocketResult? {
        if let known = untouched?.result(for: socket, request) { return known }
        if mode == .inject { untouched?.willReach(socket) }
        do {
            let operation = mode.operation(for: socket, request)
            return try access.apply(operation, to: socket, maxWaits: isLast ? .max : 1, met: met)
                .map { SocketResult(socket, $0) }
        } catch {
            return SocketResult(socket: socket, failure: error, isFailedAction: mode != .list)
        }
    }

    private func unreached(_ socket: DiscoveredSocket, _ reason: StopReason) -> SocketResult {
        SocketResult(socket: socket, failure: reason.failure, isFailedAction: mode != .list)
    }
}

extension KeepaliveRun.Mode {
    fileprivate func operation(for socket: DiscoveredSocket, _ request: KeepaliveRequest) -> KeepaliveOperation {
        KeepaliveOperation(
            request: self == .list ? nil : request, isDryRun: self == .dryRun,
            readsIdleTime: socket.row.idleSeconds == nil && socket.row.state.hasPeer,
            keepaliveByTimer: socket.row.keepaliveByTimer)
    }
}

extension StopReason {
    var failure: SocketFailure {
        switch self {
        case .timeout(let limit):
            SocketFailure(
                .other, .timedOut, "not reached within the run's time limit of \(limit)",
                remedy: "give it more with --timeout")
        case .signal(let name):
            SocketFailure(.other, .canceled, "not reached: stopped by \(name)", remedy: "run again")
        }
    }
}

extension StopReason {
    /// What to say where it came before all sockets were found: none of them was reached.
    package var searchLine: String {
        switch self {
        case .timeout(let limit):
            "the search for sockets was not over within the run's time limit of \(limit): "
                + "name the processes more exactly with --user or --exe, or give it more with --timeout"
        case .signal(let name): "stopped by \(name) while searching for sockets: run again"
        }
    }
}

/// What became of one socket.
package struct SocketResult: Sendable {
    package let socket: DiscoveredSocket
    /// What it is judged by.
    package internal(set) var request: KeepaliveRequest
    /// The number of the rule that it counts to.
    package internal(set) var rule = 0
    package internal(set) var action: SocketAction
    package internal(set) var before: KeepaliveSettings?
    package internal(set) var after: KeepaliveSettings?
    /// Where the plan leads; in a dry run it differs from `after`.
    package internal(set) var planned: KeepaliveSettings?
    package internal(set) var idleSeconds: Double?
    package internal(set) var method: Method?
    /// Whether the target would have recovered by itself, had this process been killed while it held it;
    /// nil where it was not held.
    package internal(set) var crashSafe: Bool?
    /// With whose rights it was reached; nil where it was not.
    package internal(set) var rights: Rights?
    package internal(set) var pausedMicroseconds: Int
    package internal(set) var failure: SocketFailure?
    /// nil where the connection was not asked.
    package internal(set) var probe: ProbeAnswer?
    /// An MPTCP socket has other options than its subflow, whose values nobody can read. So it is not known what was
    /// before.
    package internal(set) var subflowDiffers = false
    /// Where the settings are from.
    package internal(set) var settingsSource = SettingsSource.socket
    /// A wait of the target that begins anew, because the target was stopped in it.
    package internal(set) var restartedWait: RestartedWait?

    /// Seconds until the kernel's next keepalive probe, as far as that is known.
    ///
    /// When the timer fires before the connection has been idle for long enough, the kernel only sets it anew
    /// for the rest (net/ipv4/tcp_timer.c, tcp_keepalive_timer): the later of the two counts. While data waits no probe
    /// leaves, and when the data will be acknowledged is not known.
    package var nextProbeSeconds: Double? {
        guard waitingDataSeconds == nil else { return nil }
        // An answer began the idle time anew, and the table was read before it.
        if let probe, let after {
            return after.enabled ? max(0, Double(after.idle) - (probe.answered ? 0 : idleSeconds ?? 0)) : nil
        }
        var armed: Double?
        if action != .set, case .keepalive(let seconds) = socket.row.timer { armed = seconds }
        guard let after else { return armed }
        guard after.enabled, socket.row.state.hasPeer else { return nil }
        let due = idleSeconds.map { max(0, Double(after.idle) - $0) }
        return due.map { max($0, armed ?? 0) } ?? armed
    }

    /// When the kernel sends the next packet for data that waited when the socket was found; nil without such data.
    package var waitingDataSeconds: Double? {
        socket.row.state.hasPeer ? socket.row.timer.secondsToWaitingData : nil
    }

    package var verdict: Verdict? { verdict(against: request.firewallTimeout) }

    /// Whether the connection outlives the firewall. A socket out of reach shows by its timer at
    /// least whether keepalive is off; more than that is unknown.
    package func verdict(against firewallTimeout: Seconds) -> Verdict? {
        // Who answered was not forgotten, however long it had been idle.
        if probe?.answered != true, let idleSeconds, idleSeconds > Double(firewallTimeout.count) { return .expired }
        // Nobody knows whether they are still so.
        if settingsSource == .oldMemory { return nil }
        if let after {
            let verdict = after.verdict(against: firewallTimeout)
            guard let seconds = waitingDataSeconds else { return verdict }
            return verdict.whileDataWaits(seconds, idle: idleSeconds ?? 0, against: firewallTimeout)
        }
        if settingsSource == .table { return socket.row.verdictByTimer(against: firewallTimeout) }
        return socket.row.state.hasPeer && socket.row.timer == SocketRow.Timer.none ? .unprotected : nil
    }
}

extension SocketResult {
    fileprivate init(_ socket: DiscoveredSocket, _ result: AccessResult<KeepaliveOperation.Outcome>) {
        self.init(
            socket: socket, outcome: result.outcome, method: result.method, crashSafe: result.crashSafe,
            rights: result.rights, pausedMicroseconds: result.pausedMicroseconds)
        restartedWait = result.restartedWait
    }

    init(
        socket: DiscoveredSocket, outcome: KeepaliveOperation.Outcome, method: Method, crashSafe: Bool? = nil,
        rights: Rights?, pausedMicroseconds: Int
    ) {
        // Setting an option of an MPTCP socket sets it on every subflow.
        let isUnknown = outcome.subflowDiffers
        self.init(
            socket: socket, request: KeepaliveRequest(), action: outcome.action,
            before: isUnknown ? nil : outcome.before,
            after: isUnknown && outcome.action != .set ? nil : outcome.after,
            planned: isUnknown && outcome.action == .none ? nil : outcome.planned,
            idleSeconds: socket.row.state.hasPeer ? socket.row.idleSeconds ?? outcome.idleSeconds : nil,
            method: method, crashSafe: crashSafe, rights: rights, pausedMicroseconds: pausedMicroseconds,
            failure: nil, probe: nil, subflowDiffers: isUnknown)
    }

    init(_ candidate: AssignedSocket, _ failure: SocketFailure, isFailedAction: Bool) {
        self.init(socket: candidate.socket, failure: failure, isFailedAction: isFailedAction)
        request = candidate.request
        rule = candidate.rule
    }

    init(socket: DiscoveredSocket, failure: SocketFailure, isFailedAction: Bool) {
        self.init(
            socket: socket, request: KeepaliveRequest(), action: isFailedAction ? .failed : .none, before: nil,
            after: nil, planned: nil, idleSeconds: socket.row.idleSeconds, method: nil, crashSafe: nil, rights: nil,
            pausedMicroseconds: 0, failure: failure, probe: nil)
    }
}

/// What is done with one socket once it is reached: read, plan, set in order, read back.
struct KeepaliveOperation: SocketOperation {
    /// nil only reads.
    let request: KeepaliveRequest?
    /// Plans, and touches nothing.
    let isDryRun: Bool
    /// Asks for the idle time too, where the socket table did not tell it: one call more inside the target.
    var readsIdleTime = true
    /// ``SocketRow/keepaliveByTimer`` of the socket.
    var keepaliveByTimer: Bool?

    struct Outcome: Sendable {
        var before: KeepaliveSettings
        /// As read back; in a dry run still what was read before.
        var after: KeepaliveSettings
        /// Where the plan leads.
        var planned: KeepaliveSettings
        var idleSeconds: Double?
        var action: SocketAction
        var subflowDiffers = false
    }

    func run(on socket: inout some SocketOptions & ~Copyable) throws -> Outcome {
        let before = try socket.keepalive()
        let idleSeconds = readsIdleTime ? try idleSeconds(of: &socket) : nil
        var outcome = Outcome(
            before: before, after: before, planned: before, idleSeconds: idleSeconds, action: .none)
        outcome.subflowDiffers = try socket.differFromSubflow(before, timer: keepaliveByTimer)
        guard let request else { return outcome }
        var plan = KeepalivePlan(current: before, request: request)
        if outcome.subflowDiffers, plan == .leave { plan = before.again }
        outcome.planned = before.applying(plan)
        guard case .set(let steps) = plan else {
            outcome.action = .unchanged
            return outcome
        }
        outcome.action = isDryRun ? .wouldSet : .set
        guard !isDryRun else { return outcome }
        outcome.after = try socket.apply(steps, to: before)
        guard outcome.after == outcome.planned else {
            throw SocketFailure.overwritten
        }
        return outcome
    }

    /// nil where the socket does not tell. A target that cannot be reached any more ends the operation.
    private func idleSeconds(of socket: inout some SocketOptions & ~Copyable) throws -> Double? {
        do {
            return try socket.tcpInfo().idleSeconds
        } catch is Errno {
            return nil
        }
    }
}

extension KeepaliveSettings {
    /// What a socket says already, for subflows that have other values.
    fileprivate var again: KeepalivePlan {
        .set(enabled ? [.enable(true), .interval(interval), .count(count), .idle(idle)] : [.enable(false)])
    }
}

/// What was done with a socket.
package enum SocketAction: String, BitwiseCopyable, Sendable {
    case none, set, unchanged
    case wouldSet = "would_set"
    case failed
}

/// Whether the peer answered a probe, and in how long.
package struct ProbeAnswer: Equatable, BitwiseCopyable, Sendable {
    package let answered: Bool
    /// From the probe's leaving to the answer's coming; nil if none came to this run's question.
    package let milliseconds: Double?
    /// Data waits, and the kernel's next packet for it comes too late for this run: when the last one was answered.
    package var secondsAgo: Double?
}

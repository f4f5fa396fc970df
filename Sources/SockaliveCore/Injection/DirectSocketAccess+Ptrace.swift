// How a socket is reached by ptrace, and what becomes of a thread that ends meanwhile.
extension DirectSocketAccess {
    /// A process's code is looked for once. It may have changed since (dlclose(3), execve(2)): that is noticed
    /// while the process is held, before anything is called, and then it is looked for again. A thread that cannot be
    /// led to another call gives way to others; a signal that comes first is delivered first.
    func runByPtrace<Operation: SocketOperation>(
        _ operation: Operation, _ identity: SocketIdentity, _ holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        WorkerProgress.enter(.inspect, holder.pid, inode: identity.inode)
        let inspector = TargetInspector(procfs: procfs, holder: holder, inode: identity.inode, rights: rights)
        var attempts = Attempts(pid: holder.pid)
        while true {
            attempts.begin(knowsGadgets: gadgetsByProcess[holder.pid] != nil)
            do {
                let target = try inspector.target(
                    known: &gadgetsByProcess[holder.pid], besides: attempts.excluded)
                attempts.tid = target.tid
                return try runByPtrace(target, operation, identity)
            } catch let error as RemoteSocket.AttachError {
                try prepareNext(&attempts, after: error)
            }
        }
    }

    /// To hold a thread of one process.
    private struct Attempts {
        let pid: Int32
        /// Threads that could not be led to another call, and why the first of them could not.
        var excluded: Set<Int32> = []
        var firstError: RemoteSocket.AttachError?
        let end = ContinuousClock.now + DirectSocketAccess.maxSignalTime
        var hasForgottenGadgets = false

        /// Of the latest one: its beginning, whether the gadgets were known before, and the thread.
        var start = ContinuousClock.now
        var knewGadgets = false
        var tid: Int32 = 0

        init(pid: Int32) { self.pid = pid }

        mutating func begin(knowsGadgets: Bool) {
            (start, knewGadgets, tid) = (.now, knowsGadgets, 0)
        }
    }

    /// - Throws: the error to tell, where there is nothing else to try.
    @inline(never)
    private func prepareNext(
        _ attempts: inout Attempts, after error: RemoteSocket.AttachError
    ) throws(RemoteSocket.AttachError) {
        // No other thread is left.
        if error.reason == .chooseThread || error.reason == .descriptor, let first = attempts.firstError { throw first }
        if error.reason == .userCode, attempts.excluded.count < Self.maxExcluded {
            attempts.firstError = attempts.firstError ?? error
            attempts.excluded.insert(attempts.tid)
        } else if error.reason == .ended || error.isOfNoThread {
            try giveWay(error, of: attempts.pid, since: attempts.start)
        } else if error.isSignal, ContinuousClock.now < attempts.end {
            return
        } else if attempts.knewGadgets, !attempts.hasForgottenGadgets, error.mayBeOfOldGadgets {
            attempts.hasForgottenGadgets = true
            gadgetsByProcess[attempts.pid] = nil
        } else {
            throw attempts.firstError ?? error
        }
    }

    private static let maxExcluded = 3
    /// A thread that gets a signal every millisecond is ready at the third attempt or so.
    private static let maxSignalTime = Duration.seconds(1)

    private func runByPtrace<Operation: SocketOperation>(
        _ target: RemoteTarget, _ operation: Operation, _ identity: SocketIdentity
    ) throws -> AccessResult<Operation.Outcome> {
        try withoutJobControlStops {
            try onOwnThread {
                var remote = try RemoteSocket(target)
                if identity.sharesInode { try remote.confirm(identity) }
                let outcome = try operation.run(on: &remote)
                let isCrashSafe = remote.isCrashSafe
                let wait = remote.restartedWait
                return AccessResult(
                    outcome: outcome, method: .ptrace, crashSafe: isCrashSafe,
                    pausedMicroseconds: try remote.release(), restartedWait: wait)
            }
        }
    }

    /// Threads may live for a millisecond each. One that ended before anything was done with it gives way to another.
    ///
    /// - Throws: the error to tell, where no other thread is to be tried.
    @inline(never)
    func giveWay(
        _ error: RemoteSocket.AttachError, of pid: Int32, since start: ContinuousClock.Instant
    ) throws(RemoteSocket.AttachError) {
        guard error.reason == .ended || error.isOfNoThread else { throw error }
        // Without a pidfd a zombie has the start time that it had.
        let isZombie = procfs.threadCount(of: pid) <= 1 && procfs.hasEnded("\(pid)")
        guard !isZombie, handles[pid].map({ $0.isAlive(procfs) }) ?? true else {
            throw RemoteSocket.AttachError(reason: .gone, errno: .noSuchProcess)
        }
        let lost = timeLost[pid, default: .zero] + (.now - start)
        timeLost[pid] = lost
        guard lost < Self.maxTimeLost else {
            throw RemoteSocket.AttachError(reason: .ended, errno: .noSuchProcess)
        }
        WorkerProgress.enter(next: .inspect)
    }

    /// The time of one process in the whole run.
    private static let maxTimeLost = Duration.seconds(1)
}

extension RemoteSocket.AttachError {
    fileprivate var isOfNoThread: Bool { reason == .chooseThread && errno == .noSuchProcess }

    /// A signal came before the thread was ready. It was delivered.
    fileprivate var isSignal: Bool { reason == .prepare && errno == .interrupted }

    /// Before anything was called in the target.
    fileprivate var mayBeOfOldGadgets: Bool {
        reason == .prepare || reason == .unsupported
    }
}

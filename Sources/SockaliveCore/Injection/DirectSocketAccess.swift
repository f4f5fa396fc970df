import CSockalive
import Glibc
import SystemPackage

/// Leads to sockets with the rights that this process has by now.
final class DirectSocketAccess {
    let procfs: ProcFS
    let method: Method
    let rights: OwnRights
    /// The processes as discovery holds them.
    let handles: [Int32: ProcessHandle]
    private var gadgetsByProcess: [Int32: SyscallGadgets] = [:]
    /// With threads that ended, by process.
    private var timeLost: [Int32: Duration] = [:]

    convenience init(procfs: ProcFS, method: Method, handles: [Int32: ProcessHandle]) {
        self.init(procfs: procfs, method: method, handles: handles, rights: OwnRights(procfs: procfs))
    }

    init(procfs: ProcFS, method: Method, handles: [Int32: ProcessHandle], rights: OwnRights) {
        self.procfs = procfs
        self.method = method
        self.handles = handles
        self.rights = rights
    }

    func apply<Operation: SocketOperation>(
        _ operation: Operation, to identity: SocketIdentity, through holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        switch method {
        case .pidfd:
            WorkerProgress.enter(.borrow, holder.pid, inode: identity.inode)
            var borrowed = try borrow(identity, holder)
            return AccessResult(outcome: try operation.run(on: &borrowed), method: .pidfd)
        case .ptrace:
            return try runByPtrace(operation, identity, holder)
        }
    }

    /// pidfd_getfd(2) looks into the descriptor table of the thread that the pidfd stands for. A process's pidfd stands
    /// for its main thread. One that has exited has no table: EBADF, or ESRCH (kernel/pid.c, __pidfd_fget); and
    /// another thread may have a table of its own, which a pidfd of its own leads to.
    private func borrow(_ identity: SocketIdentity, _ holder: SocketHolder) throws -> BorrowedSocket {
        do {
            return try BorrowedSocket(pidfd: pidfd(of: holder.pid), fd: holder.fd, identity: identity)
        } catch let error as Errno where [.badFileDescriptor, .noSuchProcess, .staleNFSFileHandle].contains(error) {
            while true {
                let start = ContinuousClock.now
                do {
                    return try borrow(identity, holder, insteadOf: error)
                } catch let ended as RemoteSocket.AttachError {
                    try giveWay(ended, of: holder.pid, since: start)
                }
            }
        }
    }

    /// From another thread than the main one.
    private func borrow(
        _ identity: SocketIdentity, _ holder: SocketHolder, insteadOf error: Errno
    ) throws -> BorrowedSocket {
        let choice = ThreadChoice(procfs: procfs, pid: holder.pid, fd: holder.fd, inode: identity.inode)
        let tid: Int32
        do {
            tid = try choice.best(nil)
        } catch let own as Errno {
            if own == .noSuchProcess { throw RemoteSocket.AttachError(reason: .chooseThread, errno: own) }
            // Where the main thread has exited, the others tell.
            throw error == .noSuchProcess ? own : error
        }
        guard tid != holder.pid else { throw error }
        // The number may be another thread's by now: what is borrowed is compared with the socket's identity.
        let thread = sockalive_pidfd_open_thread(tid)
        // EINVAL before Linux 6.9: no such flag.
        if thread == -EINVAL { throw SocketFailure.otherTable(holder) }
        // It has ended since, and tells nothing about the socket.
        if thread == -ESRCH { throw RemoteSocket.AttachError(reason: .ended, errno: .noSuchProcess) }
        guard thread >= 0 else { throw Errno(rawValue: -thread) }
        defer { close(thread) }
        do {
            return try BorrowedSocket(pidfd: thread, fd: holder.fd, identity: identity)
        } catch is Errno where procfs.hasEnded(tid, of: holder.pid) {
            throw RemoteSocket.AttachError(reason: .ended, errno: .noSuchProcess)
        }
    }

    /// Threads may live for a millisecond each. One that ended before anything was done with it gives way to another.
    ///
    /// - Throws: the error to tell, where no other thread is to be tried.
    private func giveWay(
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

    /// A process's code is looked for once. It may have changed since (dlclose(3), execve(2)): that is noticed
    /// while the process is held, before anything is called, and then it is looked for again. A thread that cannot be
    /// led to another call gives way to others; a signal that comes first is delivered first.
    private func runByPtrace<Operation: SocketOperation>(
        _ operation: Operation, _ identity: SocketIdentity, _ holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        WorkerProgress.enter(.inspect, holder.pid, inode: identity.inode)
        let inspector = TargetInspector(procfs: procfs, holder: holder, inode: identity.inode, rights: rights)
        var excluded: Set<Int32> = []
        let end = ContinuousClock.now + Self.maxSignalTime
        var firstError: RemoteSocket.AttachError?
        while true {
            let known = gadgetsByProcess[holder.pid]
            let start = ContinuousClock.now
            var tid: Int32 = 0
            do {
                let target = try inspector.target(known: &gadgetsByProcess[holder.pid], besides: excluded)
                tid = target.tid
                return try runByPtrace(target, operation, identity)
            } catch let error as RemoteSocket.AttachError {
                // No other thread is left.
                if error.reason == .chooseThread || error.reason == .descriptor, let firstError { throw firstError }
                if error.reason == .userCode, excluded.count < Self.maxExcluded {
                    firstError = firstError ?? error
                    excluded.insert(tid)
                } else if error.reason == .ended || error.isOfNoThread {
                    try giveWay(error, of: holder.pid, since: start)
                } else if error.isSignal, ContinuousClock.now < end {
                    continue
                } else if known != nil, error.mayBeOfOldGadgets {
                    gadgetsByProcess[holder.pid] = nil
                } else {
                    throw firstError ?? error
                }
            }
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

    /// The pidfd that was opened before anything was read about the process: never another one's.
    private func pidfd(of pid: Int32) throws -> Int32 {
        guard let handle = handles[pid] else { throw Errno.noSuchProcess }
        guard let descriptor = handle.descriptor else { throw PidfdError(errno: handle.pidfdError ?? .noFunction) }
        return descriptor
    }
}

extension SocketFailure {
    static func otherTable(
        _ holder: SocketHolder, hasPtraceMethod: Bool = Method.ptrace.isForThisArchitecture
    ) -> SocketFailure {
        SocketFailure(
            .unsupported, .invalidArgument,
            "descriptor \(holder.fd) of PID \(holder.pid) is not in its main thread's table, so it cannot be borrowed",
            remedy: "Linux 6.9 lets a thread's own descriptor be borrowed (PIDFD_THREAD)"
                + (hasPtraceMethod ? "; until then --method ptrace reaches it" : ""))
    }
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

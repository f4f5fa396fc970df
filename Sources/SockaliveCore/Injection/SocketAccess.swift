import CSockalive
import Glibc
import SystemPackage

/// What is done with one socket while it is reached; a target held by ptrace stands still for so long.
protocol SocketOperation {
    associatedtype Outcome
    /// - Throws: `Errno` of a getsockopt or setsockopt, or ``RemoteSocket/AttachError``.
    func run(on socket: inout some SocketOptions & ~Copyable) throws -> Outcome
}

/// What came of a operation, and how the socket was reached.
struct AccessResult<Outcome> {
    let outcome: Outcome
    let method: Method
    /// Whether the target would have recovered by itself, had this process been killed; nil where it
    /// was not held.
    var crashSafe: Bool?
    /// How long a thread of the target stood still, microseconds.
    var pausedMicroseconds = 0
    var rights: Rights?
    /// A wait of the target that its stop made begin anew.
    var restartedWait: RestartedWait?
}

/// Leads to sockets of other processes, one after the other: with the rights of their owner where that is possible,
/// else with this process's own.
final class SocketAccess {
    private let procfs: ProcFS
    private let direct: DirectSocketAccess
    private let helpers: OwnerHelpers
    private var routes: [Int32: Route] = [:]
    /// Processes that could not be held: what they met would be met again for each of their sockets.
    private var unreachable: [Int32: SocketFailure]
    private let stopReason: () -> StopReason?
    private var lastLoan: (pid: Int32, loan: Loan?)?

    /// With whose rights a process is reached. It is found out once for each process, not for each of its sockets. It
    /// may change since: a helper is refused then, and a held thread is looked at again while it stands still.
    private enum Route {
        case owner(ProcessStatus)
        case own(Rights)
    }

    /// - Parameters:
    ///   - unreachable: processes that are known to hang, and why they are not touched.
    ///   - stopReason: asked between two holders of a socket.
    init(
        procfs: ProcFS, choice: MethodChoice, handles: [Int32: ProcessHandle],
        unreachable: [Int32: SocketFailure] = [:], stopReason: @escaping () -> StopReason? = { nil }
    ) {
        self.procfs = procfs
        self.unreachable = unreachable
        self.stopReason = stopReason
        direct = DirectSocketAccess(procfs: procfs, method: choice.resolved(), handles: handles)
        helpers = OwnerHelpers(direct: direct)
    }

    var method: Method { direct.method }

    /// Applies the operation through the first holder that lets it.
    ///
    /// - Throws: ``SocketFailure`` of the first holder, where none does.
    func apply<Operation: SocketOperation>(
        _ operation: Operation, to socket: DiscoveredSocket
    ) throws(SocketFailure) -> AccessResult<Operation.Outcome> {
        guard let result = try apply(operation, to: socket, maxWaits: .max) else {
            throw Diagnosis(procfs: procfs, method: method).hidden(socket.process)
        }
        return result
    }

    /// A socket whose descriptor was moved since (dup2(2)) is sought and tried again.
    ///
    /// - Parameters:
    ///   - maxWaits: after so many holders that kept it waiting in vain the others are left for later.
    ///   - met: what the operation has met through the first holder; nil if it has not been tried there.
    /// - Returns: nil if holders are left for later.
    func apply<Operation: SocketOperation>(
        _ operation: Operation, to socket: DiscoveredSocket, maxWaits: Int, met: (any Error)? = nil
    ) throws(SocketFailure) -> AccessResult<Operation.Outcome>? {
        if socket.isUndecided { throw .interfaceUnknown }
        var (socket, met) = (socket, met)
        for _ in 0..<Self.maxMoves where stopReason() == nil {
            do {
                defer { met = nil }
                return try applyOnce(operation, to: socket, maxWaits: maxWaits, met: met)
            } catch {
                guard error.isOfDescriptor else { throw error }
                var failure = error
                let moved = socket.sought(in: procfs, stopReason)
                failure.isClosed = moved == nil
                guard let moved, moved.holders != socket.holders else { throw failure }
                socket = moved
            }
        }
        return try applyOnce(operation, to: socket, maxWaits: maxWaits, met: met)
    }

    /// On a busy machine a number that changes every few milliseconds is another one nearly each time.
    private static let maxMoves = 40

    private func applyOnce<Operation: SocketOperation>(
        _ operation: Operation, to socket: DiscoveredSocket, maxWaits: Int, met: (any Error)?
    ) throws(SocketFailure) -> AccessResult<Operation.Outcome>? {
        var firstFailure: SocketFailure?
        var waits = 0
        var lastPID: Int32?
        for (number, holder) in socket.holders.enumerated() {
            // Another descriptor of the same process leads nowhere that the first one did not.
            if holder.pid == lastPID { continue }
            if let known = unreachable[holder.pid] {
                firstFailure = firstFailure ?? known
                continue
            }
            if waits == maxWaits { return nil }
            // The first holder has used up the time.
            if let firstFailure, stopReason() != nil { throw firstFailure }
            do {
                if number == 0, let met { throw met }
                return try apply(operation, to: socket, through: holder)
            } catch {
                let failure = failure(for: error, holder: holder)
                firstFailure = firstFailure ?? failure
                // Unless the number is another file by now, is not open (O_PATH), or is of another thread's table.
                if !failure.isOfDescriptor { lastPID = holder.pid }
                guard let attachError = error as? RemoteSocket.AttachError, attachError.isOfProcess else { continue }
                unreachable[holder.pid] = failure
                if attachError.mayHaveWaited { waits += 1 }
            }
        }
        throw firstFailure ?? Diagnosis(procfs: procfs, method: method).hidden(socket.process)
    }

    func failure(for error: any Error, holder: SocketHolder) -> SocketFailure {
        error as? SocketFailure ?? Diagnosis(procfs: procfs, method: method).failure(for: error, holder: holder)
    }

    /// How a socket can be borrowed by any thread: by this process's own rights. nil where a helper or ptrace leads to
    /// it, or nothing does.
    func loan(of socket: DiscoveredSocket) -> Loan? {
        guard method == .pidfd, !socket.isUndecided, let holder = socket.holder else { return nil }
        let pid = holder.pid
        if let last = lastLoan, last.pid == pid { return last.loan }
        let loan = loan(of: pid, socket)
        lastLoan = (pid, loan)
        return loan
    }

    private func loan(of pid: Int32, _ socket: DiscoveredSocket) -> Loan? {
        guard unreachable[pid] == nil, let pidfd = direct.handles[pid]?.descriptor else { return nil }
        if let known = routes[pid] {
            guard case .own(let rights) = known else { return nil }
            return Loan(pidfd: pidfd, rights: rights)
        }
        WorkerProgress.enter(.helper, pid, inode: socket.inode)
        // Discovery has read it of the process with which it found the socket.
        let found = pid == socket.process.pid ? socket.process.status : nil
        guard let status = found ?? (try? procfs.status("\(pid)")), helpers.areNeedless(for: status) else { return nil }
        return Loan(pidfd: pidfd, rights: ownRights(to: pid, status))
    }

    private func ownRights(to pid: Int32, _ status: ProcessStatus) -> Rights {
        let rights: Rights = direct.rights.areCovered(by: status, "\(pid)", procfs) ? .owner : .kept
        routes[pid] = .own(rights)
        return rights
    }

    private func apply<Operation: SocketOperation>(
        _ operation: Operation, to socket: DiscoveredSocket, through holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        let identity = socket.identity
        WorkerProgress.enter(.helper, holder.pid, inode: identity.inode)
        // Discovery has read it of the process with which it found the socket.
        let found = holder.pid == socket.process.pid ? socket.process.status : nil
        let route = try routes[holder.pid] ?? .owner(found ?? procfs.status("\(holder.pid)"))
        if case .owner(let status) = route {
            routes[holder.pid] = route
            do {
                if let helper = try helpers.helper(for: holder.pid, status) {
                    return try helper.apply(operation, to: identity, through: holder)
                }
            } catch is OwnerHelper.InsufficientRights {
                // More rights are needed than the owner's.
            }
            _ = ownRights(to: holder.pid, status)
        }
        var result = try direct.apply(operation, to: identity, through: holder)
        if case .own(let rights) = routes[holder.pid] { result.rights = rights }
        return result
    }
}

/// A process whose sockets any thread of this one can borrow, one at a time.
struct Loan: Sendable {
    let pidfd: Int32
    let rights: Rights

    /// Through the first holder of the socket.
    ///
    /// - Returns: nil where the socket was not borrowed; why the operation failed, where it did.
    func apply<Operation: SocketOperation>(
        _ operation: Operation, to socket: DiscoveredSocket, _ thread: WorkerThread
    ) -> Result<AccessResult<Operation.Outcome>, any Error>? {
        guard let holder = socket.holder else { return nil }
        let identity = socket.identity
        thread.enter(.borrow, holder.pid, inode: identity.inode)
        guard var borrowed = try? BorrowedSocket(pidfd: pidfd, fd: holder.fd, identity: identity, thread: thread)
        else { return nil }
        return Result { try operation.run(on: &borrowed) }
            .map { AccessResult(outcome: $0, method: .pidfd, rights: rights) }
    }
}

/// Leads to sockets with the rights that this process has by now.
final class DirectSocketAccess {
    let procfs: ProcFS
    let method: Method
    let rights: OwnRights
    /// The processes as discovery holds them.
    let handles: [Int32: ProcessHandle]
    var gadgetsByProcess: [Int32: SyscallGadgets] = [:]
    /// With threads that ended, by process.
    var timeLost: [Int32: Duration] = [:]

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
        WorkerProgress.enter(next: .borrow)
        let choice = ThreadChoice(procfs: procfs, pid: holder.pid, fd: holder.fd, inode: identity.inode)
        let tid: Int32
        do {
            tid = try choice.best(nil)
        } catch let own as Errno {
            if own == .noSuchProcess { throw RemoteSocket.AttachError(reason: .chooseThread, errno: own) }
            // Where the main thread has exited, the others tell.
            throw procfs.hasEnded("\(holder.pid)") ? own : error
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

extension SocketFailure {
    /// The descriptor is not that socket, or not open; another descriptor of the process may be.
    var isOfDescriptor: Bool { ["ESTALE", "EBADF", "EINVAL"].contains(code) }
}

extension RemoteSocket.AttachError {
    /// It would be met again for every socket of the process.
    fileprivate var isOfProcess: Bool {
        switch reason {
        case .seize, .stop, .gone, .replaced, .tampered, .frozen, .memory, .userCode, .ended: true
        case .chooseThread: errno == .resourceBusy || errno == .noSuchProcess
        case .call, .prepare: errno == .timedOut
        case .unsupported, .seccomp, .descriptor: false
        }
    }

    /// A wait for the target came to its limit.
    fileprivate var mayHaveWaited: Bool { reason == .stop || reason == .ended || errno == .timedOut }
}

import CSockalive
import Glibc
import SystemPackage

/// A process of ours that has taken on the rights of a target's owner, and reaches into that owner's processes.
///
/// ptrace(2) and pidfd_getfd(2) on a process of the same user need no capability, where Yama lets them and the target
/// has not made itself undumpable. So there a target can lead the helper to nothing that its owner could not do anyway:
/// to trace a set-user-ID program takes its set-user-ID bit away (security/commoncap.c, cap_bprm_creds_from_file), and
/// the memory of a privileged program is refused.
///
/// The helper has this process's memory from the moment of the fork, but no descriptor of it except `/proc`, the
/// pidfds and the channel. It is not dumpable, so its user cannot trace it. Its user can kill or stop it; then it
/// fails for that user's sockets, and for no other's.
///
/// When this process dies, the kernel kills the helper (PR_SET_PDEATHSIG). A thread that it holds then recovers by its
/// frames.
final class OwnerHelper {
    /// It may not reach into this process: more rights are needed than its owner's.
    struct InsufficientRights: Error {}

    private let pid: Int32
    private let uid: UInt32
    private let channel: HelperChannel
    private(set) var isAlive = true

    /// How long one request may take. A hold waits for one second at most for each stop.
    ///
    /// Where the parent of this process kills it when nothing moves, it does not count the time itself.
    private static var timeout: Duration? { WorkerProgress.isSupervised ? nil : .seconds(5) }
    private static let endTimeout = Duration.milliseconds(500)

    /// - Throws: `Errno` where there is no such helper to be had: this process may not change its user (CAP_SETUID,
    ///   CAP_SETGID), or the system has no process to give.
    init(owner: Owner, direct: DirectSocketAccess) throws(Errno) {
        let (ours, theirs) = try HelperChannel.pair()
        // The parent of this program may have set SIGCHLD to be ignored. A child's number is reused at once then.
        signal(SIGCHLD, SIG_DFL)
        let child = sockalive_fork()
        if child == 0 {
            WorkerProgress.report(to: nil)
            ours.close()
            HelperProcess(channel: theirs, direct: direct).run(as: owner)
        }
        theirs.close()
        channel = ours
        pid = child
        uid = owner.uid
        guard child > 0 else {
            ours.close()
            isAlive = false
            throw Errno(rawValue: -child)
        }
        // Only an error that the helper reports makes it impossible. It may be silent because its user has stopped it.
        guard let reply = channel.receiveReply(within: Self.timeout) else {
            end()
            return
        }
        if case .failed(let error) = reply {
            end()
            throw error
        }
    }

    deinit {
        if isAlive { end() }
    }

    /// A target that the helper holds waits for this process: no terminal stops it meanwhile.
    func apply<Operation: SocketOperation>(
        _ operation: Operation, to identity: SocketIdentity, through holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        try withoutJobControlStops { try run(operation, on: identity, holder) }
    }

    private func run<Operation: SocketOperation>(
        _ operation: Operation, on identity: SocketIdentity, _ holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        try open(identity, holder)
        var socket = HelperSocket(helper: self, holder: holder)
        let outcome: Operation.Outcome
        do {
            outcome = try operation.run(on: &socket)
        } catch {
            // Why the operation failed is what the caller asks.
            if isAlive { _ = try? ask(.release, holder) }
            throw error
        }
        guard case .released(let crashSafe, let paused, let wait) = try ask(.release, holder) else {
            throw Errno.ioError
        }
        return AccessResult(
            outcome: outcome, method: crashSafe == nil ? .pidfd : .ptrace, crashSafe: crashSafe,
            pausedMicroseconds: paused, rights: .owner, restartedWait: wait)
    }

    private func open(_ identity: SocketIdentity, _ holder: SocketHolder) throws {
        do {
            _ = try ask(.open(holder, identity), holder)
        } catch let error as Errno where error.isPermission {
            throw InsufficientRights()
        } catch let attachError as RemoteSocket.AttachError where attachError.errno.isPermission {
            throw InsufficientRights()
        }
    }

    /// - Throws: what the helper met: `Errno`, ``RemoteSocket/AttachError``, ``SocketFailure``.
    fileprivate func ask(_ request: HelperRequest, _ holder: SocketHolder) throws -> HelperReply {
        WorkerProgress.enter(next: request.step)
        guard isAlive, channel.send(request.message), let reply = reply() else {
            if isAlive { end() }
            throw SocketFailure.helperFailed(holder, uid, request)
        }
        switch reply {
        case .failed(let error): throw error
        case .refused(let attachError): throw attachError
        case .otherTable: throw SocketFailure.otherTable(holder)
        default: return reply
        }
    }

    /// The answer. As long as the helper waits for a thread that it holds, that is no hang; but it has an end.
    private func reply() -> HelperReply? {
        let deadline = ContinuousClock.now + Self.maxBusyTime
        while let reply = channel.receiveReply(within: Self.timeout) {
            guard case .busy = reply else { return reply }
            if ContinuousClock.now < deadline { WorkerProgress.enter(next: .stop) }
        }
        return nil
    }

    private static let maxBusyTime = Duration.seconds(6)

    /// It ends by itself as soon as its channel does. What does not is killed, and left behind if it hangs in the
    /// kernel (state D).
    private func end() {
        let isAnswering = isAlive
        isAlive = false
        channel.close()
        guard pid > 0 else { return }
        // It may have been killed, by its user, while it held a thread.
        defer { WorkerProgress.hold(isUnsafe: false) }
        if isAnswering && hasEnded(within: Self.endTimeout) { return }
        kill(pid, SIGKILL)
        _ = hasEnded(within: Self.endTimeout)
    }

    private func hasEnded(within time: Duration) -> Bool {
        let deadline = ContinuousClock.now + time
        repeat {
            // 0: not yet; -1: somebody else has reaped it.
            if waitpid(pid, nil, WNOHANG) != 0 { return true }
            usleep(50)
        } while ContinuousClock.now < deadline
        return false
    }
}

extension HelperRequest {
    /// What the helper's answer may wait for.
    fileprivate var step: WorkerStep {
        switch self {
        case .open: .helper
        case .get, .exchange: .options
        case .release: .close
        }
    }
}

/// A socket that a helper has opened.
private struct HelperSocket: SocketOptions {
    let helper: OwnerHelper
    let holder: SocketHolder

    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int {
        let size = min(value.count, ScratchArea.valueSize)
        guard case .value(let bytes) = try helper.ask(.get(level: level, name: name, size: size), holder),
            bytes.count <= size
        else { throw Errno.ioError }
        value.copyBytes(from: bytes)
        return bytes.count
    }

    mutating func exchange(_ options: inout [OptionExchange]) throws {
        guard case .exchanged(let outcomes) = try helper.ask(.exchange(options), holder),
            outcomes.count == options.count
        else { throw Errno.ioError }
        for (index, outcome) in outcomes.enumerated() {
            options[index].value = outcome.value
            options[index].error = outcome.error
        }
    }
}

/// The helpers of one run: one for each owner whose processes are reached.
final class OwnerHelpers {
    private let direct: DirectSocketAccess
    private var helpers: [Owner: OwnerHelper] = [:]
    /// How many helpers of a user were killed, or did not answer.
    private var losses: [UInt32: Int] = [:]
    /// Owners for whom there can be none.
    private var impossible: Set<Owner> = []

    private static let maxLosses = 2

    init(direct: DirectSocketAccess) {
        self.direct = direct
    }

    /// Whether this process's own rights serve.
    func areNeedless(for status: ProcessStatus) -> Bool { owner(status) == nil }

    private func owner(_ status: ProcessStatus) -> Owner? {
        guard let owner = Owner(status), owner.uid != 0, direct.rights.exceed(owner), !impossible.contains(owner) else {
            return nil
        }
        return owner
    }

    /// The helper for a process; nil where this process's own rights serve: they are no more than the owner's, the
    /// owner is root, or there can be no such helper.
    ///
    /// - Throws: ``SocketFailure`` where the owner's helpers were lost too often: what they met would be met again.
    func helper(for pid: Int32, _ status: ProcessStatus) throws(SocketFailure) -> OwnerHelper? {
        guard let owner = owner(status) else { return nil }
        while losses[owner.uid, default: 0] < Self.maxLosses {
            if let helper = helpers[owner], helper.isAlive { return helper }
            if helpers.removeValue(forKey: owner) != nil {
                losses[owner.uid, default: 0] += 1
                continue
            }
            do throws(Errno) {
                helpers[owner] = try OwnerHelper(owner: owner, direct: direct)
            } catch {
                impossible.insert(owner)
                return nil
            }
        }
        throw .helpersLost(pid, owner.uid)
    }
}

extension SocketFailure {
    fileprivate static func helpersLost(_ pid: Int32, _ uid: UInt32) -> Self {
        SocketFailure(
            .other, .timedOut,
            "PID \(pid) was not reached: the helper processes with the rights of user \(uid) were lost",
            remedy: "see the failures before; leave out what hangs, with --user, --exe or --pid")
    }

    fileprivate static func helperFailed(_ holder: SocketHolder, _ uid: UInt32, _ request: HelperRequest) -> Self {
        let what =
            switch request {
            case .open: "its descriptor \(holder.fd) was reached"
            case .get, .exchange: "options of its descriptor \(holder.fd) were read or set"
            case .release: "its descriptor \(holder.fd) was let go"
            }
        return SocketFailure(
            .other, .timedOut,
            "PID \(holder.pid): the helper process with the rights of user \(uid) gave no answer while \(what)",
            remedy: "it hangs in the kernel, or user \(uid) has killed or stopped it; run again")
    }
}

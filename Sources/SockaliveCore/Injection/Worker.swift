import CSockalive
import Glibc
import SystemPackage

/// A process of ours that has taken on the rights of a target's owner, and reaches into that owner's processes.
///
/// ptrace(2) and pidfd_getfd(2) on a process of the same user need no capability, where Yama lets them and the target
/// has not made itself undumpable. So there a target can lead the worker to nothing that its owner could not do anyway:
/// to trace a set-user-ID program takes its set-user-ID bit away (security/commoncap.c, cap_bprm_creds_from_file), and
/// the memory of a privileged program is refused.
///
/// The worker has this process's memory from the moment of the fork, but no descriptor of it except `/proc`, the
/// pidfds and the channel. It is not dumpable, so its user cannot trace it. Its user can kill or stop it; then it
/// fails for that user's sockets, and for no other's.
///
/// What happens when this process dies: the channel ends, the worker lets go of what it holds, and ends.
final class Worker {
    /// It may not reach into this process: more rights are needed than its owner's.
    struct OutOfReach: Error {}

    private let pid: Int32
    private let uid: UInt32
    private let channel: WorkerChannel
    private(set) var isWell = true

    /// How long one request may take. A hold waits for one second at most for each stop.
    private static let timeout = Duration.seconds(5)
    private static let endPatience = Duration.milliseconds(500)

    /// - Throws: `Errno` where there is no such worker to be had: this process may not change its user (CAP_SETUID,
    ///   CAP_SETGID), or the system has no process to give.
    init(owner: Owner, local: LocalReach) throws(Errno) {
        let (ours, theirs) = try WorkerChannel.pair()
        // Whoever started this program may have its children's ends ignored: then their numbers are given away at once.
        signal(SIGCHLD, SIG_DFL)
        let child = sockalive_fork()
        if child == 0 {
            ours.close()
            WorkerProcess(channel: theirs, local: local).run(as: owner)
        }
        theirs.close()
        channel = ours
        pid = child
        uid = owner.uid
        guard child > 0 else {
            ours.close()
            isWell = false
            throw Errno(rawValue: -child)
        }
        // Silence is its user's doing, or a system in trouble; only what it says itself makes it impossible.
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
        if isWell { end() }
    }

    /// A target that the worker holds waits for this process: no terminal stops it meanwhile.
    func apply<Operation: SocketOperation>(
        _ operation: Operation, to identity: SocketIdentity, through holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        try withoutJobControlStops { try run(operation, on: identity, holder) }
    }

    private func run<Operation: SocketOperation>(
        _ operation: Operation, on identity: SocketIdentity, _ holder: SocketHolder
    ) throws -> AccessResult<Operation.Outcome> {
        try open(identity, holder)
        var socket = WorkerSocket(worker: self, holder: holder)
        let outcome: Operation.Outcome
        do {
            outcome = try operation.run(on: &socket)
        } catch {
            // Why the operation failed is what the caller asks.
            if isWell { _ = try? ask(.release, holder) }
            throw error
        }
        guard case .released(let crashSafe, let paused) = try ask(.release, holder) else { throw Errno.ioError }
        return AccessResult(
            outcome: outcome, method: crashSafe == nil ? .pidfd : .ptrace, crashSafe: crashSafe,
            pausedMicroseconds: paused, rights: .owner)
    }

    private func open(_ identity: SocketIdentity, _ holder: SocketHolder) throws {
        do {
            _ = try ask(.open(holder, identity), holder)
        } catch let error as Errno where error.isPermission {
            throw OutOfReach()
        } catch let attachError as RemoteSocket.AttachError where attachError.errno.isPermission {
            throw OutOfReach()
        }
    }

    /// - Throws: what the worker met: `Errno`, ``RemoteSocket/AttachError``, ``SocketFailure``.
    fileprivate func ask(_ request: WorkerRequest, _ holder: SocketHolder) throws -> WorkerReply {
        guard isWell, channel.send(request.message), let reply = channel.receiveReply(within: Self.timeout) else {
            if isWell { end() }
            throw SocketFailure.workerFailed(holder, uid, request)
        }
        switch reply {
        case .failed(let error): throw error
        case .refused(let attachError): throw attachError
        case .otherTable: throw SocketFailure.otherTable(holder)
        default: return reply
        }
    }

    /// It ends by itself as soon as its channel does. What does not is killed, and left behind if it hangs in the
    /// kernel (state D).
    private func end() {
        let isAnswering = isWell
        isWell = false
        channel.close()
        guard pid > 0 else { return }
        if isAnswering && hasEnded(within: Self.endPatience) { return }
        kill(pid, SIGKILL)
        _ = hasEnded(within: Self.endPatience)
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

/// A socket that a worker has opened.
private struct WorkerSocket: SocketOptions {
    let worker: Worker
    let holder: SocketHolder

    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int {
        let size = min(value.count, ScratchArea.valueSize)
        guard case .value(let bytes) = try worker.ask(.get(level: level, name: name, size: size), holder),
            bytes.count <= size
        else { throw Errno.ioError }
        value.copyBytes(from: bytes)
        return bytes.count
    }

    mutating func exchange(_ options: inout [OptionExchange]) throws {
        guard case .exchanged(let outcomes) = try worker.ask(.exchange(options), holder),
            outcomes.count == options.count
        else { throw Errno.ioError }
        for (index, outcome) in outcomes.enumerated() {
            options[index].value = outcome.value
            options[index].error = outcome.error
        }
    }
}

/// The workers of one run: one for each owner whose processes are reached.
final class Workers {
    private let local: LocalReach
    private var workers: [Owner: Worker] = [:]
    /// How many workers of a user were killed, or did not answer.
    private var losses: [UInt32: Int] = [:]
    /// Owners for whom there can be none.
    private var impossible: Set<Owner> = []

    private static let maxLosses = 2

    init(local: LocalReach) {
        self.local = local
    }

    /// The worker for a process; nil where this process's own rights serve: they are no more than the owner's, the
    /// owner is root, or there can be no such worker.
    ///
    /// - Throws: ``SocketFailure`` where the owner's workers were lost too often: what they met would be met again.
    func worker(for pid: Int32, _ status: ProcessStatus) throws(SocketFailure) -> Worker? {
        guard let owner = Owner(status), owner.uid != 0, local.rights.exceed(owner), !impossible.contains(owner) else {
            return nil
        }
        while losses[owner.uid, default: 0] < Self.maxLosses {
            if let worker = workers[owner], worker.isWell { return worker }
            if workers.removeValue(forKey: owner) != nil {
                losses[owner.uid, default: 0] += 1
                continue
            }
            do throws(Errno) {
                workers[owner] = try Worker(owner: owner, local: local)
            } catch {
                impossible.insert(owner)
                return nil
            }
        }
        throw .workersLost(pid, owner.uid)
    }
}

extension SocketFailure {
    fileprivate static func workersLost(_ pid: Int32, _ uid: UInt32) -> Self {
        SocketFailure(
            .other, .timedOut,
            "PID \(pid) was not reached: the helper processes with the rights of user \(uid) were lost",
            remedy: "see the failures before; leave out what hangs, with --user, --exe or --pid")
    }

    fileprivate static func workerFailed(_ holder: SocketHolder, _ uid: UInt32, _ request: WorkerRequest) -> Self {
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

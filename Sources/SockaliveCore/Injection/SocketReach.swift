import SystemPackage

/// What is done with one socket while it is reached; a target held by ptrace stands still for so long.
protocol SocketTreatment {
    associatedtype Outcome
    /// - Throws: `Errno` of a getsockopt or setsockopt, or ``RemoteSocket/Refusal``.
    func run(on socket: inout some SocketOptions & ~Copyable) throws -> Outcome
}

/// Leads to sockets of other processes, one after the other.
final class SocketReach {
    struct Reached<Outcome> {
        let outcome: Outcome
        let method: Method
        /// Whether the target would have recovered by itself, had this process been killed; nil where it
        /// was not held.
        var crashSafe: Bool?
        /// How long a thread of the target stood still, microseconds.
        var pausedMicroseconds = 0
    }

    let method: Method
    private let procfs: ProcFS
    private let choice: MethodChoice
    /// The processes as discovery holds them.
    private let handles: [Int32: ProcessHandle]
    private var codeByProcess: [Int32: MachineCode] = [:]

    init(procfs: ProcFS, choice: MethodChoice, handles: [Int32: ProcessHandle]) {
        self.procfs = procfs
        self.choice = choice
        self.method = choice.resolved()
        self.handles = handles
    }

    /// Applies the treatment through the first holder that lets it.
    ///
    /// - Throws: ``SocketFailure`` of the first holder, where none does.
    func apply<Treatment: SocketTreatment>(
        _ treatment: Treatment, to socket: DiscoveredSocket
    ) throws(SocketFailure) -> Reached<Treatment.Outcome> {
        var firstFailure: SocketFailure?
        for holder in socket.holders.onePerProcess {
            do {
                return try apply(treatment, to: socket, through: holder)
            } catch {
                firstFailure = firstFailure ?? failure(for: error, holder: holder)
            }
        }
        throw firstFailure ?? Diagnosis(procfs: procfs, method: method).hidden(socket.process)
    }

    func failure(for error: any Error, holder: SocketHolder) -> SocketFailure {
        error as? SocketFailure ?? Diagnosis(procfs: procfs, method: method).failure(for: error, holder: holder)
    }

    private func apply<Treatment: SocketTreatment>(
        _ treatment: Treatment, to socket: DiscoveredSocket, through holder: SocketHolder
    ) throws -> Reached<Treatment.Outcome> {
        guard method == .pidfd else { return try hold(treatment, socket, holder) }
        do {
            let owner = try pidfd(of: holder.pid)
            var borrowed = try BorrowedSocket(pidfd: owner, fd: holder.fd, inode: socket.inode)
            return Reached(outcome: try treatment.run(on: &borrowed), method: .pidfd)
        } catch let error as Errno where isElsewhere(error, holder, socket.inode) {
            guard choice == .auto else { throw SocketFailure.otherTable(error, holder) }
            return try hold(treatment, socket, holder)
        }
    }

    /// A process's code is looked for once. It may have changed since (dlclose(3), execve(2)): that is noticed
    /// while the process is held, before anything is called, and then it is looked for again.
    private func hold<Treatment: SocketTreatment>(
        _ treatment: Treatment, _ socket: DiscoveredSocket, _ holder: SocketHolder
    ) throws -> Reached<Treatment.Outcome> {
        let known = codeByProcess[holder.pid]
        let inspector = TargetInspector(procfs: procfs, holder: holder, inode: socket.inode)
        do {
            let target = try inspector.target(known: known)
            codeByProcess[holder.pid] = target.code
            return try hold(target, treatment)
        } catch let refusal as RemoteSocket.Refusal where known != nil && refusal.mayBeOfOldCode {
            codeByProcess[holder.pid] = nil
            return try hold(treatment, socket, holder)
        }
    }

    private func hold<Treatment: SocketTreatment>(
        _ target: RemoteTarget, _ treatment: Treatment
    ) throws -> Reached<Treatment.Outcome> {
        try onOwnThread {
            var remote = try RemoteSocket(target)
            let outcome = try treatment.run(on: &remote)
            let isCrashSafe = remote.isCrashSafe
            return Reached(
                outcome: outcome, method: .ptrace, crashSafe: isCrashSafe, pausedMicroseconds: remote.release())
        }
    }

    /// pidfd_getfd(2) looks into the main thread's descriptors. One that has exited has none: EBADF, or ESRCH
    /// (kernel/pid.c, __pidfd_fget); and another thread may have a table of its own.
    private func isElsewhere(_ error: Errno, _ holder: SocketHolder, _ inode: UInt64) -> Bool {
        guard [.badFileDescriptor, .noSuchProcess, .staleNFSFileHandle].contains(error) else { return false }
        let choice = ThreadChoice(procfs: procfs, pid: holder.pid, fd: holder.fd, inode: inode)
        return (try? choice.best(nil)).map { $0 != holder.pid } ?? false
    }

    /// The pidfd that was opened before anything was read about the process: never another one's.
    private func pidfd(of pid: Int32) throws -> Int32 {
        guard let handle = handles[pid] else { throw Errno.noSuchProcess }
        guard let descriptor = handle.descriptor else { throw Errno.noFunction }
        return descriptor
    }
}

extension SocketFailure {
    fileprivate static func otherTable(_ error: Errno, _ holder: SocketHolder) -> SocketFailure {
        SocketFailure(
            .unsupported, error,
            "descriptor \(holder.fd) of PID \(holder.pid) is not its main thread's, so it cannot be borrowed",
            remedy: "use --method auto or ptrace")
    }
}

extension RemoteSocket.Refusal {
    /// Before anything was called in the target.
    fileprivate var mayBeOfOldCode: Bool {
        stage == .prepare || stage == .unsupported
    }
}

extension [SocketHolder] {
    /// A second descriptor of the same process leads nowhere that the first does not.
    fileprivate var onePerProcess: [SocketHolder] {
        var seen: Set<Int32> = []
        return count == 1 ? self : filter { seen.insert($0.pid).inserted }
    }
}

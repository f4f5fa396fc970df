import SystemPackage

/// A process of our own for the trial. It has a live TCP connection, and reports its keepalive settings.
package protocol TrialTarget {
    var pid: Int32 { get }
    /// The descriptor of its connection.
    var fd: Int32 { get }
    /// The settings that getsockopt(2) returns in that process; nil if it does not reply.
    func keepalive() -> KeepaliveSettings?
}

/// Why there is no process for the trial.
package struct TrialAbsence: Error, Equatable, Sendable {
    package let message: String
    package let remedy: String

    package init(_ message: String, remedy: String) {
        self.message = message
        self.remedy = remedy
    }
}

/// The result of a trial.
enum TrialOutcome: Equatable, Sendable {
    /// All values were set, and the process itself read them back.
    case worked(KeepaliveSettings, pausedMicroseconds: Int)
    /// The process was held, but it inherits sockalive's own seccomp filter, and a process under a filter may not
    /// suspend one. So the trial tells nothing about targets without a filter.
    case filtered
    case failed(SocketFailure)
}

/// Injects into the child's connection by each method, and looks it up by sock_diag.
struct Trial {
    let procfs: ProcFS
    let target: any TrialTarget
    let ownSeccomp: Int
    var source = SocketSource.auto
    var limits = ProcessLimits()

    /// The child's connection, found in the same way as in every run.
    func connection() throws -> DiscoveredSocket {
        let selection = Selection(
            processes: ProcessSelection(pids: [target.pid]), sockets: SocketSelection(ports: nil))
        let sockets = try Discovery(procfs: procfs, source: source, method: .ptrace, limits: limits)
            .snapshot(of: selection).sockets
        guard let socket = sockets.first(where: { $0.holders.contains { $0.fd == target.fd } }) else {
            throw TrialAbsence(
                "the connection of the child is not to be found in /proc/\(target.pid)",
                remedy: "mount /proc of this very PID namespace, without hidepid")
        }
        return socket
    }

    /// Sets values that no socket has by chance, different ones for each method.
    func inject(into socket: DiscoveredSocket, by method: Method) -> TrialOutcome {
        let offset = method == .pidfd ? 1 : 2
        let request = KeepaliveRequest(
            firewallTimeout: KeepaliveRequest.defaultFirewallTimeout, idle: 600 + offset, interval: 60 + offset,
            count: 50 + offset, userTimeout: nil, enabled: true)
        let wanted = KeepaliveSettings(
            enabled: true, idle: request.wanted.idle, interval: request.wanted.interval, count: request.wanted.count)
        let holder = SocketHolder(pid: target.pid, fd: target.fd)
        do {
            let paused = try apply(KeepaliveOperation(request: request, isDryRun: false), to: socket, holder, method)
            guard let found = target.keepalive(), found == wanted else { return .failed(Self.notReadBack) }
            return .worked(found, pausedMicroseconds: paused)
        } catch let attachError as RemoteSocket.AttachError where attachError.reason == .seccomp && ownSeccomp != 0 {
            return .filtered
        } catch let failure as SocketFailure {
            return .failed(failure)
        } catch {
            return .failed(Diagnosis(procfs: procfs, method: method).failure(for: error, holder: holder))
        }
    }

    /// Whether sock_diag finds the connection with the same inode.
    func lookup(_ socket: DiscoveredSocket) -> Result<Bool, Errno> {
        let row = socket.row
        return Result { () throws(Errno) in
            var diag = try SockDiagSocket()
            let found = try diag.row(family: row.family, local: row.local, remote: row.remote)
            // Without the module tcp_diag the kernel returns ENOENT, too.
            guard let found else { throw .noSuchFileOrDirectory }
            return found.inode == row.inode
        }
    }

    private func apply(
        _ operation: KeepaliveOperation, to socket: DiscoveredSocket, _ holder: SocketHolder, _ method: Method
    ) throws -> Int {
        // The child's PID cannot be reused before this process has waited for it.
        guard let handle = ProcessHandle(pid: holder.pid, procfs: procfs) else { throw Errno.noSuchProcess }
        let access = DirectSocketAccess(procfs: procfs, method: method, handles: [holder.pid: handle])
        return try access.apply(operation, to: socket.identity, through: holder).pausedMicroseconds
    }

    private static let notReadBack = SocketFailure(
        .other, .ioError, "the options were set, but the process itself reads back other values",
        remedy: "this must not happen: report it with the kernel's version, and use the other method")
}

/// The results of the trials.
struct TrialResults: Equatable, Sendable {
    /// nil: not tried.
    var pidfd: TrialOutcome?
    var ptrace: TrialOutcome?
    /// Whether sock_diag returned the same socket; nil: not tried.
    var lookup: Result<Bool, Errno>?
    /// Why nothing was tried; nil if it was.
    var absence: TrialAbsence?

    func outcome(_ method: Method) -> TrialOutcome? {
        method == .pidfd ? pidfd : ptrace
    }

    /// The methods that can be expected to work, the least intrusive first.
    var methods: [Method] {
        [.pidfd, .ptrace].filter { method in
            switch outcome(method) {
            case .worked, .filtered: true
            case .failed, nil: false
            }
        }
    }
}

/// Judges the results of the trials. Pure.
struct TrialChecks {
    let results: TrialResults
    let surroundings: Surroundings
    /// The method that `--method auto` uses. If it fails, the user must choose another one.
    let auto: Method

    var all: [Check] {
        if let absence = results.absence {
            return [.problem("trial", absence.message, remedy: absence.remedy)]
        }
        return [check(.pidfd), check(.ptrace), lookup].compactMap(\.self)
    }

    private func check(_ method: Method) -> Check? {
        let name = "try_\(method.rawValue)"
        guard let outcome = results.outcome(method) else {
            return .note(name, "not tried: ptrace injection is for x86-64", remedy: "nothing to do where pidfd works")
        }
        let alternative: Method = method == .pidfd ? .ptrace : .pidfd
        let alternativeWorks = results.methods.contains(alternative)
        switch outcome {
        case .worked(let settings, let paused):
            let values = "\(settings.idle)/\(settings.interval)/\(settings.count)"
            let pause = method == .pidfd ? "it never stopped" : "a thread paused for \(paused) µs"
            return .ok(name, "\(values) set, read back by the child; \(pause)")
        case .filtered:
            return .note(
                name, "the child could be held, but not called from: it inherits the filter on sockalive itself",
                remedy: alternativeWorks
                    ? "nothing to do: \(alternative.rawValue) works"
                    : "targets without a filter may be reached; for others: \(surroundings.toRunWithoutFilter)")
        case .failed(let failure):
            let rest =
                switch results.outcome(alternative) {
                case .worked: " (\(alternative.rawValue) works)"
                case .filtered: " (\(alternative.rawValue) may work for targets without a filter)"
                case .failed, nil: ""
                }
            return .obstacle(
                name, isFatal: method == auto || !alternativeWorks, failure.message + rest,
                remedy: failure.remedy ?? "run it on the host itself, as root")
        }
    }

    /// Without sock_diag, finding sockets is only slower.
    private var lookup: Check? {
        switch results.lookup {
        case nil: return nil
        case .success(true): return .ok("try_sock_diag", "found the child's connection")
        case .success(false):
            return .note("try_sock_diag", "answered with another socket; /proc/net/tcp serves instead")
        case .failure(let error):
            return .note(
                "try_sock_diag", "does not answer (\(error.name)); /proc/net/tcp serves instead, a little slower",
                remedy: error == .noSuchFileOrDirectory ? "modprobe tcp_diag" : "nothing to do")
        }
    }
}

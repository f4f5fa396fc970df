import Glibc
import SystemPackage

/// Turns an errno into what an administrator can act on.
struct Diagnosis {
    let procfs: ProcFS
    let method: Method

    func failure(for error: any Error, holder: SocketHolder) -> SocketFailure {
        let own = (error as? RemoteSocket.AttachError)?.errno ?? error as? Errno
        if let own, own.isOfOpenFiles {
            return SocketFailure(
                .other, own, "this program may not open another file (\(own))",
                remedy: "raise the limit of open files (ulimit -n)")
        }
        return switch error {
        case let attachError as RemoteSocket.AttachError: failure(for: attachError, holder: holder)
        case let error as PidfdError: failure(for: error, holder: holder)
        case let error as Errno: failure(for: error, holder: holder)
        default: SocketFailure(.other, .ioError, "\(error)")
        }
    }

    /// The process's descriptors may not be read, so nobody knows which one it is.
    func hidden(_ process: ProcessIdentity) -> SocketFailure {
        let rights = MissingRights(procfs: procfs, pid: process.pid, surroundings: surroundings)
        return SocketFailure(
            .permission, .permissionDenied,
            "the descriptors of \(process.name.escaped) (PID \(process.pid)) may not be read: \(rights.reason)",
            remedy: rights.remedy)
    }

    private func failure(for error: Errno, holder: SocketHolder) -> SocketFailure {
        let pid = holder.pid
        switch error {
        case .notPermitted, .permissionDenied:
            return denied(error, pid)
        case .noFunction:
            return withoutPidfd(error, pid)
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem:
            return SocketFailure(
                .other, error, "no descriptor is free to borrow one of PID \(pid) (\(error.name))",
                remedy: error == .tooManyOpenFiles
                    ? "raise the limit of open files (ulimit -n, LimitNOFILE=)"
                    : "the whole system has too many open files: raise fs.file-max")
        case .notSupported, .protocolNotAvailable:
            return SocketFailure(
                .unsupported, error,
                "descriptor \(holder.fd) of PID \(pid) is a socket without settable keepalive times "
                    + "(MPTCP on kernel \(KernelVersion.running.escaped))",
                remedy: "Linux 6.10 lets MPTCP sockets set them; TCP_USER_TIMEOUT they never have")
        case .staleNFSFileHandle, .badFileDescriptor:
            return changed(error, holder)
        case .noSuchProcess, .noSuchFileOrDirectory:
            return gone(error, pid)
        default:
            return SocketFailure(.other, error, "PID \(pid), descriptor \(holder.fd): \(error)")
        }
    }

    private func failure(for error: PidfdError, holder: SocketHolder) -> SocketFailure {
        let pid = holder.pid
        switch error.errno {
        case .invalidArgument, .noSuchFileOrDirectory:
            guard let process = procfs.process(ofThread: pid), process != pid else { break }
            return SocketFailure(
                .other, error.errno, "\(pid) is a thread of process \(process), which alone can be borrowed from",
                remedy: "name the process: --pid \(process)")
        case .noSuchProcess, .noFunction, .tooManyOpenFiles, .tooManyOpenFilesInSystem, .notPermitted,
            .permissionDenied:
            return failure(for: error.errno, holder: holder)
        default: break
        }
        return SocketFailure(.other, error.errno, "no pidfd of PID \(pid) can be opened: \(error.errno)")
    }

    private func failure(for attachError: RemoteSocket.AttachError, holder: SocketHolder) -> SocketFailure {
        let error = attachError.errno
        let pid = holder.pid
        switch attachError.reason {
        case .unsupported:
            return SocketFailure(
                .unsupported, error, "ptrace injection into PID \(pid) is not possible: \(unsupportedReason)",
                remedy: pidfdRemedy)
        case .seize where error.isPermission:
            return denied(error, pid)
        case .seize where error == .noFunction:
            return SocketFailure(
                .unsupported, error,
                "a filter or a sandbox hides ptrace from sockalive; this kernel "
                    + "(\(KernelVersion.running.escaped)) has it",
                remedy: "\(surroundings.toRunWithoutFilter)\(orPidfd)")
        case .replaced:
            return SocketFailure(
                .other, error, "PID \(pid) started another program while it was held; nothing was written into that",
                remedy: "run again; if it happens again, somebody plays tricks: look at what PID \(pid) is")
        case .tampered:
            return SocketFailure(
                .other, error,
                "PID \(pid) or a process that shares its memory led the held thread to another call; it was not made",
                remedy: "somebody plays tricks: look at what PID \(pid) is, and leave it out with --user or --exe")
        case .descriptor where error == .staleNFSFileHandle: return changed(error, holder)
        case .ended:
            return SocketFailure(
                .other, .resourceTemporarilyUnavailable,
                "each thread of PID \(pid) that was chosen ended before it could be used; nothing was changed",
                remedy: "run again")
        case .gone: return gone(error, pid)
        case _ where error == .noSuchProcess: return gone(error, pid)
        case .frozen: return frozen(error, pid)
        case .stop, .chooseThread, .call, .prepare, .seccomp, .descriptor, .memory, .seize, .userCode:
            return failureWhileStopping(attachError, pid)
        }
    }

    private func failureWhileStopping(_ attachError: RemoteSocket.AttachError, _ pid: Int32) -> SocketFailure {
        let error = attachError.errno
        switch attachError.reason {
        case .seccomp: return filtered(error, pid)
        case .memory: return unreadable(error, pid)
        case .prepare where error.isPermission, .descriptor where error.isPermission,
            .chooseThread where error.isPermission:
            return denied(error, pid)
        case .userCode: return inUserCode(error, pid)
        // It may have been frozen since it was inspected.
        case _ where Freezer(procfs: procfs).isFrozen(pid): return frozen(error, pid)
        case .stop, .chooseThread:
            return SocketFailure(
                .other, error, "PID \(pid) could not be stopped: no thread of it runs or sleeps interruptibly",
                remedy: "it hangs in the kernel (state D) or is frozen; nothing was changed, run again later"
                    + orPidfd)
        case .prepare where error != .timedOut && error != .resourceBusy:
            return SocketFailure(
                .other, error, "PID \(pid) offers no safe place to call from (\(error)); nothing was changed",
                remedy: pidfdRemedy)
        default:
            return SocketFailure(
                .other, error, "the call inside PID \(pid) did not come to its end in time (\(error))",
                remedy: "it waits in the kernel, for memory or a lock; run again later\(orPidfd)")
        }
    }

    /// Before Linux 5.13 nobody can tell whether a thread is in a restartable sequence (rseq(2)), in which no system
    /// call may be made.
    private func inUserCode(_ error: Errno, _ pid: Int32) -> SocketFailure {
        let state = error == .resourceBusy ? "is stopped outside a system call" : "makes no system call"
        return SocketFailure(
            .other, error,
            "PID \(pid) \(state), and this kernel does not tell whether it could be led to one there "
                + "(rseq, Linux 5.13); nothing was changed",
            remedy: (error == .resourceBusy ? "kill -CONT \(pid), and run again" : "run again later") + orPidfd)
    }

    private func changed(_ error: Errno, _ holder: SocketHolder) -> SocketFailure {
        SocketFailure(
            .other, error, "fd changed: descriptor \(holder.fd) of PID \(holder.pid) is another file by now",
            remedy: "the connection was closed or moved; run again")
    }

    private func gone(_ error: Errno, _ pid: Int32) -> SocketFailure {
        SocketFailure(.other, error, "PID \(pid) has exited", remedy: "nothing is left to do for it")
    }

    private func frozen(_ error: Errno, _ pid: Int32) -> SocketFailure {
        SocketFailure(
            .other, error, "PID \(pid) is frozen (its container or unit is paused); nothing was changed",
            remedy: "\(Freezer.remedy)\(orPidfd)")
    }

    // MARK: - Rights

    /// First the tracer, then a filter on this process, then the rights: the order in which one rules the other out.
    private func denied(_ error: Errno, _ pid: Int32) -> SocketFailure {
        let tracer = (try? procfs.status("\(pid)"))?.tracer ?? 0
        if method == .ptrace, tracer != 0 {
            let name = (try? procfs.read("\(tracer)/comm") { UntrustedText($0.dropLast()) })?.escaped ?? "?"
            return SocketFailure(
                .permission, error, "PID \(pid) is traced by \(name) (PID \(tracer)) already, and only one tracer may",
                remedy: "detach \(name)\(orPidfd)")
        }
        if let call = ownFilter.forbiddenCall(of: method) {
            return SocketFailure(
                .permission, error,
                "no permission to reach into PID \(pid): a seccomp filter on sockalive itself forbids \(call)",
                remedy: ownFilter.remedy)
        }
        let rights = MissingRights(procfs: procfs, pid: pid, surroundings: surroundings)
        return SocketFailure(
            .permission, error, "no permission to reach into PID \(pid): \(rights.reason)", remedy: rights.remedy)
    }

    private var surroundings: Surroundings { .here(procfs) }
    private var ownFilter: OwnFilter { OwnFilter(procfs: procfs, surroundings: surroundings) }

    /// PTRACE_O_SUSPEND_SECCOMP (kernel/ptrace.c, check_ptrace_options): CAP_SYS_ADMIN of the first user namespace, no
    /// filter on the tracer itself, and a kernel that has it.
    private func filtered(_ error: Errno, _ pid: Int32) -> SocketFailure {
        let message = "PID \(pid) has a seccomp filter that may kill it for a foreign call, and it cannot be suspended"
        if error == .invalidArgument || error == .ioError {
            return SocketFailure(
                .unsupported, error, "\(message): this kernel cannot (Linux 4.3, CONFIG_CHECKPOINT_RESTORE)",
                remedy: pidfdRemedy)
        }
        let rights = MissingRights(procfs: procfs, surroundings: surroundings)
        let (reason, remedy) =
            if !rights.held.contains(.sysAdmin) {
                ("CAP_SYS_ADMIN is missing", rights.adding(.sysAdmin))
            } else if surroundings.hasOwnUsers {
                ("CAP_SYS_ADMIN of a user namespace does not count", surroundings.toLeaveTheUserNamespace)
            } else if ownFilter.isActive {
                ("sockalive runs under a filter itself, and such a process may not", surroundings.toRunWithoutFilter)
            } else {
                ("the kernel forbids it", "look into the kernel's log for a security module")
            }
        return SocketFailure(.permission, error, "\(message): \(reason)", remedy: "\(remedy)\(orPidfd)")
    }

    /// The kernel gives a tracer all memory that is mapped. Only a sandbox between does not.
    private func unreadable(_ error: Errno, _ pid: Int32) -> SocketFailure {
        SocketFailure(
            error == .noFunction ? .unsupported : error.isPermission ? .permission : .other, error,
            "the memory of PID \(pid) cannot be read (\(error.name)): a filter or a sandbox hides /proc/PID/mem",
            remedy: "\(surroundings.toRunWithoutFilter)\(orPidfd)")
    }

    // MARK: - Methods

    private func withoutPidfd(_ error: Errno, _ pid: Int32) -> SocketFailure {
        let release = KernelVersion.running
        if release.isBefore(5, 6) {
            return SocketFailure(
                .unsupported, error, "this kernel (\(release.escaped)) has no pidfd_getfd",
                remedy: "Linux 5.6 brought it\(Self.orPtrace)")
        }
        return SocketFailure(
            .unsupported, error,
            "a filter or a sandbox hides pidfd_getfd from sockalive; this kernel (\(release.escaped)) has it",
            remedy: "\(ownFilter.remedy)\(Self.orPtrace)")
    }

    private static var orPtrace: String {
        Method.ptrace.isForThisArchitecture ? "; or use --method ptrace" : ""
    }

    /// Only where this kernel and its filters let a descriptor be borrowed.
    private var orPidfd: String {
        method == .ptrace && MethodChoice.borrowError() == nil ? "; or use --method pidfd" : ""
    }

    private var pidfdRemedy: String {
        guard let error = MethodChoice.borrowError() else { return "use --method pidfd" }
        return KernelVersion.running.isBefore(5, 6)
            ? "the method pidfd can do it, from Linux 5.6 on"
            : "the method pidfd can do it, and is filtered here (\(error.name)): \(ownFilter.remedy)"
    }

    private var unsupportedReason: String {
        #if arch(x86_64)
            "it runs in a mode that sockalive does not know (x32, another code segment), "
                + "or turns its own system calls into signals (PR_SET_SYSCALL_USER_DISPATCH)"
        #else
            "sockalive knows x86-64 only"
        #endif
    }
}

extension ProcFS {
    /// The process that a thread belongs to (`Tgid` in its status); nil if it is gone.
    fileprivate func process(ofThread tid: Int32) -> Int32? {
        let line = text("\(tid)/status")?.split(separator: UInt8(ascii: "\n")).first { $0.starts(with: "Tgid:".utf8) }
        return line?.dropFirst(5).drop { $0 == UInt8(ascii: "\t") }.decimal()
    }
}

/// A pidfd could not be opened, so no descriptor can be borrowed.
struct PidfdError: Error {
    let errno: Errno
}

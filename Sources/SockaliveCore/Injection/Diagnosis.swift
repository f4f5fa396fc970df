import Glibc
import SystemPackage

/// Turns an errno into what an administrator can act on.
struct Diagnosis {
    let procfs: ProcFS
    let method: Method

    func failure(for error: any Error, holder: SocketHolder) -> SocketFailure {
        switch error {
        case let attachError as RemoteSocket.AttachError: failure(for: attachError, holder: holder)
        case let error as Errno: failure(for: error, holder: holder)
        default: SocketFailure(.other, .ioError, "\(error)")
        }
    }

    /// The process's descriptors may not be read, so nobody knows which one it is.
    func hidden(_ process: ProcessIdentity) -> SocketFailure {
        SocketFailure(
            .permission, .permissionDenied,
            "the descriptors of \(process.name.escaped) (PID \(process.pid)) may not be read",
            remedy: rights)
    }

    private func failure(for error: Errno, holder: SocketHolder) -> SocketFailure {
        let pid = holder.pid
        switch error {
        case .notPermitted, .permissionDenied:
            return denied(error, pid)
        case .noFunction:
            return SocketFailure(
                .unsupported, error, "this kernel (\(kernelRelease)) has no pidfd_getfd, or a filter hides it",
                remedy: "Linux 5.6 brought it; use --method ptrace or auto")
        case .notSupported, .protocolNotAvailable:
            return SocketFailure(
                .unsupported, error,
                "descriptor \(holder.fd) of PID \(pid) is a socket without settable keepalive times "
                    + "(MPTCP on kernel \(kernelRelease))",
                remedy: "Linux 6.10 lets MPTCP sockets set them; TCP_USER_TIMEOUT they never have")
        case .staleNFSFileHandle, .badFileDescriptor:
            return changed(error, holder)
        case .noSuchProcess, .noSuchFileOrDirectory:
            return gone(error, pid)
        default:
            return SocketFailure(.other, error, "PID \(pid), descriptor \(holder.fd): \(error)")
        }
    }

    private func failure(for attachError: RemoteSocket.AttachError, holder: SocketHolder) -> SocketFailure {
        let error = attachError.errno
        let pid = holder.pid
        switch attachError.reason {
        case .unsupported:
            return SocketFailure(
                .unsupported, error, "ptrace injection into PID \(pid) is not possible: \(unsupportedReason)",
                remedy: "--method pidfd works on every architecture from Linux 5.6 on")
        case .seize where error.isPermission:
            return denied(error, pid)
        case .seize where error == .noFunction:
            return SocketFailure(
                .unsupported, error, "this kernel (\(kernelRelease)) has no ptrace, or a filter hides it",
                remedy: "run it outside the container or the sandbox that filters system calls")
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
        case .gone: return gone(error, pid)
        case _ where error == .noSuchProcess: return gone(error, pid)
        case .stop, .chooseThread:
            return SocketFailure(
                .other, error, "PID \(pid) could not be stopped: no thread of it runs or sleeps interruptibly",
                remedy: "it hangs in the kernel (state D) or is frozen; nothing was changed, run again later")
        case .seccomp:
            return SocketFailure(
                .permission, error, "PID \(pid) has a seccomp filter that may kill it for a foreign call",
                remedy: "run as root with CAP_SYS_ADMIN, which may suspend the filter, or use --method pidfd")
        case .prepare where error.isPermission, .descriptor where error.isPermission,
            .chooseThread where error.isPermission:
            return denied(error, pid)
        case .prepare where error != .timedOut && error != .resourceBusy:
            return SocketFailure(
                .other, error, "PID \(pid) offers no safe place to call from (\(error)); nothing was changed",
                remedy: "use --method pidfd (Linux 5.6)")
        default:
            return SocketFailure(
                .other, error, "the call inside PID \(pid) did not come to its end in time (\(error))",
                remedy: "it waits in the kernel, for memory or a lock; run again later, or use --method pidfd")
        }
    }

    private func changed(_ error: Errno, _ holder: SocketHolder) -> SocketFailure {
        SocketFailure(
            .other, error, "fd changed: descriptor \(holder.fd) of PID \(holder.pid) is another file by now",
            remedy: "the connection was closed or moved; run again")
    }

    private func gone(_ error: Errno, _ pid: Int32) -> SocketFailure {
        SocketFailure(.other, error, "PID \(pid) has exited", remedy: "nothing is left to do for it")
    }

    /// First the tracer, then the rights, then Yama: the order in which one rules the other out.
    private func denied(_ error: Errno, _ pid: Int32) -> SocketFailure {
        let status = try? procfs.status("\(pid)")
        if method == .ptrace, let tracer = status?.tracer, tracer != 0 {
            let name = (try? procfs.read("\(tracer)/comm") { UntrustedText($0.dropLast()) })?.escaped ?? "?"
            return SocketFailure(
                .permission, error, "PID \(pid) is traced by \(name) (PID \(tracer)) already, and only one tracer may",
                remedy: "detach \(name), or use --method pidfd")
        }
        return SocketFailure(.permission, error, "no permission to reach into PID \(pid)", remedy: rights)
    }

    /// What to do where rights are missing.
    var rights: String {
        let yama = procfs.number("sys/kernel/yama/ptrace_scope")
        if yama == 3 { return "kernel.yama.ptrace_scope is 3: nobody may, not even root, until the next boot" }
        let held = ProcessStatus(procfs.text("self/status") ?? [])?.effectiveCapabilities ?? []
        guard held.contains(.sysPtrace) else {
            let scope = yama.map { $0 > 0 ? " (kernel.yama.ptrace_scope is \($0))" : "" } ?? ""
            return "run as root or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH\(scope)"
        }
        // proc_pid_fd(5): the folder belongs to the target's user, mode 0500.
        guard held.contains(.dacReadSearch) else {
            return "CAP_SYS_PTRACE alone does not open another user's /proc/PID/fd: add CAP_DAC_READ_SEARCH"
        }
        return "a security module (SELinux, AppArmor) or a container forbids it; look into the audit log, "
            + "or run it on the host itself"
    }

    private var unsupportedReason: String {
        #if arch(x86_64)
            "it runs in a mode that sockalive does not know (x32, another code segment), "
                + "or turns its own system calls into signals (PR_SET_SYSCALL_USER_DISPATCH)"
        #else
            "sockalive knows x86-64 only"
        #endif
    }

    private var kernelRelease: String {
        let text = try? procfs.read("sys/kernel/osrelease") { UntrustedText($0.dropLast()) }
        return text?.escaped ?? "unknown"
    }
}

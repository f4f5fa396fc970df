import CSockalive
import Glibc
import SystemPackage

/// A way to reach a socket of another process.
public enum Method: String, Sendable {
    /// Borrows the descriptor by pidfd_getfd(2), Linux 5.6; the target is never stopped.
    case pidfd
    /// Calls setsockopt inside the target by ptrace(2); every kernel, x86-64.
    case ptrace
}

/// What the caller asked for.
public enum MethodChoice: String, CaseIterable, Sendable {
    /// The gentlest that works here.
    case auto, pidfd, ptrace

    /// The way to take: asked of the kernel once, by borrowing a descriptor of our own, which needs
    /// no rights. An old kernel answers ENOSYS; a container's seccomp profile that does not know
    /// the call answers EPERM.
    public func resolved() -> Method {
        switch self {
        case .pidfd: .pidfd
        case .ptrace: .ptrace
        case .auto: Self.borrowError() == nil ? .pidfd : .ptrace
        }
    }

    /// Why this process cannot even borrow its own descriptor; nil if it can.
    static func borrowError() -> Errno? {
        let pidfd = sockalive_pidfd_open(getpid())
        guard pidfd >= 0 else { return Errno(rawValue: -pidfd) }
        defer { close(pidfd) }
        let copy = sockalive_pidfd_getfd(pidfd, pidfd)
        guard copy >= 0 else { return Errno(rawValue: -copy) }
        close(copy)
        return nil
    }
}

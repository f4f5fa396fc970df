import CSockalive
import Glibc
import SystemPackage

/// The seccomp filter on this process itself, as in a container or under a unit.
struct OwnFilter {
    let procfs: ProcFS
    let surroundings: Surroundings

    var isActive: Bool { (try? procfs.status("self"))?.seccomp ?? 0 != 0 }

    /// The call of a method that is forbidden even where no right is needed; nil if there is none.
    ///
    /// A process may always borrow its own descriptor (kernel/ptrace.c, __ptrace_may_access). A ptrace request for
    /// process 0, which does not exist, gives ESRCH.
    func forbiddenCall(of method: Method) -> String? {
        switch method {
        case .pidfd:
            guard let error = MethodChoice.borrowError(), error.isPermission else { return nil }
            return MethodChoice.opensPidfds ? "pidfd_getfd" : "pidfd_open"
        case .ptrace: return sockalive_ptrace(PTRACE_DETACH, 0, 0, 0) == -EPERM ? "ptrace" : nil
        }
    }

    var remedy: String { MissingRights(procfs: procfs, surroundings: surroundings).remedyForOwnFilter }
}

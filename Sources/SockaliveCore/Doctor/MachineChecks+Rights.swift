/// What this process may do to others.
extension MachineChecks {
    private var isPrivileged: Bool { facts.capabilities.contains(.sysPtrace) }

    var tracing: Check {
        guard !isPrivileged else { return .ok("cap_sys_ptrace", "held: every process may be reached") }
        return .note(
            "cap_sys_ptrace", "missing: only processes of user \(facts.uid) may be reached",
            remedy: facts.uid == 0
                ? "a container took it from root: add it (docker run --cap-add SYS_PTRACE)" : "run as root")
    }

    var reading: Check {
        guard !facts.capabilities.contains(.dacReadSearch) else {
            return .ok("cap_dac_read_search", "held: every process's descriptors may be read")
        }
        return .note(
            "cap_dac_read_search", "missing: descriptors of other users' processes cannot be read",
            remedy: isPrivileged ? "add it to CAP_SYS_PTRACE, or run as root" : "run as root")
    }

    var suspending: Check {
        guard !facts.capabilities.contains(.sysAdmin) else {
            return .ok("cap_sys_admin", "held: a target's seccomp filter may be suspended")
        }
        return .note(
            "cap_sys_admin", "missing: ptrace injection leaves out targets with a seccomp filter",
            remedy: facts.hasPidfd ? "nothing to do: pidfd reaches them" : "run as root, on the host itself")
    }

    /// Yama (Documentation/admin-guide/LSM/Yama.rst) stands before pidfd_getfd just as before ptrace.
    var yama: Check {
        let setting = "kernel.yama.ptrace_scope"
        switch facts.yama {
        case nil: return .ok("yama", "not active: there is no \(setting)")
        case 0: return .ok("yama", "\(setting) is 0: no further limits")
        case 1, 2:
            let scope = facts.yama == 1 ? "1" : "2"
            guard !isPrivileged else { return .ok("yama", "\(setting) is \(scope): open to CAP_SYS_PTRACE") }
            let whom = scope == "1" ? "only its own children" : "no process at all"
            return .problem(
                "yama", "\(setting) is \(scope): without CAP_SYS_PTRACE sockalive may reach \(whom)",
                remedy: "run as root, or sysctl -w \(setting)=0")
        default:
            return .problem(
                "yama", "\(setting) is 3: nobody may reach into a process, not even root",
                remedy: "it cannot be lowered: take it out of /etc/sysctl.conf and /etc/sysctl.d, and reboot")
        }
    }

    var selinux: Check {
        let selinux = facts.selinux
        let context = selinux.context?.escaped ?? "an unknown context"
        switch selinux.mode {
        case .absent: return .ok("selinux", "not active")
        case .permissive: return .ok("selinux", "permissive: it forbids nothing")
        case .enforcing where selinux.denyPtrace == true:
            return .problem(
                "selinux", "enforcing, and the boolean deny_ptrace is on: nobody may reach into a process",
                remedy: "setsebool deny_ptrace off (with -P also after the next boot)")
        case .enforcing where context.contains(":unconfined_t:"):
            return .ok("selinux", "enforcing, but sockalive is unconfined")
        case .enforcing:
            return .note(
                "selinux", "enforcing, and sockalive runs as \(context): it may be forbidden to reach an agent",
                remedy: "where that happens, ausearch -m avc -c sockalive names the missing permission")
        }
    }

    var appArmor: Check {
        guard facts.appArmor.isEnabled else { return .ok("apparmor", "not active") }
        let profile = facts.appArmor.profile?.escaped ?? "unknown"
        guard profile.hasSuffix("(enforce)") else { return .ok("apparmor", "active, sockalive itself is \(profile)") }
        return .note(
            "apparmor", "active, and sockalive is confined by \(profile)",
            remedy: "the profile has to allow ptrace of the agent; look for apparmor=\"DENIED\" in the kernel log")
    }
}

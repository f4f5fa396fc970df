import SystemPackage

/// Judges the facts of a machine. Pure.
struct MachineChecks {
    let facts: MachineFacts
    let firewallTimeout: Seconds

    var all: [Check] {
        [
            kernel, pidfd, processMemory, tracing, reading, suspending, yama, selinux, appArmor, seccomp,
            namespaces, proc, keepalive,
        ]
    }

    var kernel: Check {
        switch facts.architecture {
        case .amd64:
            return .ok("kernel", "Linux \(facts.release.escaped) on x86-64")
        case .other(let name):
            let message = "Linux \(facts.release.escaped) on \(name): ptrace injection is for x86-64, pidfd for all"
            return .obstacle(
                "kernel", isFatal: !facts.hasPidfd, message, remedy: "pidfd needs Linux 5.6: update the kernel")
        }
    }

    var pidfd: Check {
        let missing = facts.pidfdOpenError != nil ? "pidfd_open" : "pidfd_getfd"
        guard let error = facts.pidfdOpenError ?? facts.pidfdGetfdError else {
            return .ok("pidfd", "pidfd_open and pidfd_getfd answer")
        }
        let isFatal = facts.architecture != .amd64
        if error == .noFunction {
            return .obstacle(
                "pidfd", isFatal: isFatal, "\(missing) is missing: ptrace serves, which stops a thread for a moment",
                remedy: "Linux 5.6 brought it; a container's seccomp profile may hide it")
        }
        return .obstacle(
            "pidfd", isFatal: isFatal, "\(missing) is forbidden (\(error.name)): ptrace serves, if it may",
            remedy: "a seccomp filter does that: run on the host itself, or allow pidfd_getfd in the profile")
    }

    var processMemory: Check {
        guard case .amd64 = facts.architecture else {
            return .ok("process_memory", "not needed: only ptrace injection uses it")
        }
        guard let error = facts.processMemoryError else {
            return .ok("process_memory", "/proc/PID/mem can be read and written")
        }
        return .obstacle(
            "process_memory", isFatal: !facts.hasPidfd,
            "/proc/self/mem cannot be read and written (\(error.name)): ptrace injection needs it",
            remedy: "a sandbox hides it: run on the host itself, or with /proc mounted as it is there")
    }

    var seccomp: Check {
        guard facts.seccomp != 0 else { return .ok("seccomp", "no filter on sockalive itself") }
        return .note(
            "seccomp", "a filter lies on sockalive itself, as in a container",
            remedy: "if a trial below fails: run on the host, or allow the call in the profile")
    }

    var namespaces: Check {
        let facts = facts.namespaces
        var inside: [String] = []
        if facts.isFirstPID == false { inside.append("PID namespace (what runs outside is invisible)") }
        if facts.isFirstUser == false { inside.append("user namespace (capabilities count only inside)") }
        if facts.isFirstNetwork == false { inside.append("network namespace (each target's own is looked into)") }
        guard !inside.isEmpty else {
            return .ok("namespaces", "on the host itself, in no container")
        }
        return .note(
            "namespaces", "in a container: a separate " + inside.joined(separator: ", a separate "),
            remedy: "for an agent outside, run on the host itself")
    }

    var proc: Check {
        guard facts.hidePID != .off, !facts.capabilities.contains(.sysPtrace) else {
            let mode = facts.hidePID.rawValue
            let option = facts.hidePID == .off ? "" : " (hidepid=\(mode) does not hide from CAP_SYS_PTRACE)"
            return .ok("proc", "/proc shows every process\(option)")
        }
        return .note(
            "proc", "/proc is mounted with hidepid=\(facts.hidePID.rawValue): processes of other users are hidden",
            remedy: "run as root, or be in the group that the mount option gid= names")
    }

    /// The sysctl alone is never enough. It only applies to sockets that enable keepalive without an idle time of their
    /// own (include/net/tcp.h, keepalive_time_when).
    var keepalive: Check {
        guard let defaults = facts.keepalive else {
            return .note("keepalive", "net.ipv4.tcp_keepalive_* cannot be read; sockalive does not need them")
        }
        let values = "\(defaults.time)/\(defaults.interval)/\(defaults.probes)"
        guard defaults.time + 2 * defaults.interval < firewallTimeout.count else {
            return .note(
                "keepalive",
                "sysctl tcp_keepalive_* is \(values): the first probe comes after \(Seconds(defaults.time)), "
                    + "too late for \(firewallTimeout), and only where the program asks for keepalive",
                remedy: "nothing to do: sockalive gives each socket values of its own")
        }
        return .ok(
            "keepalive", "sysctl tcp_keepalive_* is \(values): soon enough, where the program asks for keepalive")
    }
}

/// The rights of this process over other processes.
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

    /// Yama (Documentation/admin-guide/LSM/Yama.rst) restricts pidfd_getfd and ptrace alike.
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

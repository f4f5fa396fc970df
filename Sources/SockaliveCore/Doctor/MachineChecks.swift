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

    private var isAMD64: Bool { facts.architecture == .amd64 }

    var kernel: Check {
        if facts.release.isUnsupported {
            return .problem(
                "kernel", "Linux \(facts.release.escaped): too old, and nothing is tried on it",
                remedy: "sockalive needs Linux 3.10 (RHEL 7) or newer: update the kernel")
        }
        guard case .other(let name) = facts.architecture else {
            return .ok("kernel", "Linux \(facts.release.escaped) on x86-64")
        }
        let message = "Linux \(facts.release.escaped) on \(name): ptrace injection is for x86-64, pidfd for all"
        if facts.hasPidfd { return .ok("kernel", message) }
        return facts.release.isBefore(5, 6)
            ? .problem("kernel", message, remedy: "pidfd needs Linux 5.6: update the kernel")
            : .note("kernel", message, remedy: "this kernel has pidfd: see the check pidfd")
    }

    var pidfd: Check {
        guard let error = facts.pidfdOpenError ?? facts.pidfdGetfdError else {
            return .ok("pidfd", "pidfd_open and pidfd_getfd answer")
        }
        let missing = facts.pidfdOpenError != nil ? "pidfd_open" : "pidfd_getfd"
        // Processes of one container have the same filter.
        let served = facts.seccomp != 0 ? "ptrace serves for targets without a filter" : "ptrace serves"
        let rest = isAMD64 ? "\(served), and stops a thread for a moment" : "no method is left"
        if error == .noFunction, facts.release.isBefore(5, 6) {
            return .obstacle(
                "pidfd", isFatal: !isAMD64, "\(missing) is missing: \(rest)",
                remedy: "Linux 5.6 brought it: update the kernel")
        }
        if error == .tooManyOpenFiles || error == .tooManyOpenFilesInSystem {
            return .problem(
                "pidfd", "\(missing) cannot be tried: no descriptor is free (\(error.name))",
                remedy: "raise the limit of open files (ulimit -n, fs.file-max)")
        }
        return .obstacle(
            "pidfd", isFatal: !isAMD64, "a filter or a sandbox hides \(missing) (\(error.name)): \(rest)",
            remedy: facts.rights.remedyForOwnFilter)
    }

    var processMemory: Check {
        guard isAMD64 else { return .ok("process_memory", "not needed: only ptrace injection uses it") }
        guard let error = facts.processMemoryError else {
            return .ok("process_memory", "/proc/PID/mem can be read and written")
        }
        return .obstacle(
            "process_memory", isFatal: !facts.hasPidfd,
            "/proc/self/mem cannot be read and written (\(error.name)): ptrace injection needs it",
            remedy: "a filter or a sandbox hides it: \(facts.surroundings.toRunWithoutFilter)")
    }

    var seccomp: Check {
        guard facts.seccomp != 0 else { return .ok("seccomp", "no filter on sockalive itself") }
        return .note(
            "seccomp",
            "a filter lies on sockalive itself: it may forbid calls"
                + (isAMD64 ? ", and ptrace injection cannot suspend a target's" : ""),
            remedy: "where a trial below fails: \(facts.surroundings.toRunWithoutFilter)")
    }

    var namespaces: Check {
        let place = facts.surroundings
        var own: [String] = []
        var shared: [String] = []
        func sort(_ isFirst: Bool?, _ name: String, _ consequence: String) {
            if isFirst == false { own.append("\(name) (\(consequence))") }
            if isFirst == true { shared.append(name) }
        }
        sort(place.isFirstPID, "PID namespace", "processes outside are invisible")
        sort(place.isFirstUser, "user namespace", "capabilities count only inside")
        sort(place.isFirstNetwork, "network namespace", "each target's own is looked into")
        guard let phrase = place.containerPhrase else {
            guard !own.isEmpty else { return .ok("namespaces", "on the host itself, in no container") }
            return .note(
                "namespaces", "in its own " + own.joined(separator: " and its own "),
                remedy: place.hasOwnProcesses || place.hasOwnUsers
                    ? "for an agent outside, run on the host itself" : "nothing to do")
        }
        var sentences: [String] = []
        if !own.isEmpty { sentences.append("its own " + own.joined(separator: " and its own ")) }
        if !shared.isEmpty { sentences.append("the host's " + shared.joined(separator: " and ")) }
        return .note(
            "namespaces", "\(phrase): " + sentences.joined(separator: "; "),
            remedy: place.hasOwnProcesses
                ? place.toSeeTheHost : place.hasOwnUsers ? place.toLeaveTheUserNamespace : "nothing to do")
    }

    var proc: Check {
        if facts.hidesProcesses {
            let mode = facts.hidePID.rawValue
            return .note(
                "proc", "/proc is mounted with hidepid=\(mode): processes of other users are hidden",
                remedy: "\(facts.rights.adding(.sysPtrace)), or join the group that the mount option gid= names")
        }
        let mode = facts.hidePID.rawValue
        let option = facts.hidePID == .off ? "" : " (hidepid=\(mode) does not hide from CAP_SYS_PTRACE)"
        guard facts.surroundings.hasOwnProcesses else { return .ok("proc", "/proc shows every process\(option)") }
        let count = facts.processCount == 1 ? "the one process" : "the \(facts.processCount) processes"
        return .ok("proc", "/proc shows \(count) of this PID namespace, and none outside\(option)")
    }

    /// Nothing of the selection was found.
    func absence(of selection: String) -> Check {
        if facts.hidesProcesses {
            return .problem(
                "targets", "no process matches among those that hidepid leaves visible: looked for \(selection)",
                remedy: proc.remedy ?? "run as root")
        }
        guard facts.surroundings.hasOwnProcesses else {
            return .note(
                "targets", "no process matches: looked for \(selection)",
                remedy: "start the agent, or name it with --process or --pid")
        }
        return .note(
            "targets",
            "no process matches among the \(facts.processCount) of this PID namespace: looked for \(selection)",
            remedy: facts.surroundings.toSeeTheHost)
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

    /// How far a capability reaches.
    private func held(_ what: String) -> String {
        facts.surroundings.hasOwnUsers
            ? "held in this user namespace: \(what) inside, and none outside"
            : "held: \(what)" + (facts.surroundings.hasOwnProcesses ? " that is visible" : "")
    }

    var tracing: Check {
        guard !isPrivileged else { return .ok("cap_sys_ptrace", held("it opens every process")) }
        return .note(
            "cap_sys_ptrace",
            "missing: only processes of user \(facts.uid) with no more capabilities than sockalive may be reached",
            remedy: facts.rights.remedyForMissingCapabilities)
    }

    var reading: Check {
        let name = "cap_dac_read_search"
        if facts.capabilities.contains(.dacReadSearch) {
            return .ok(name, held("it opens the descriptors of every process"))
        }
        if facts.capabilities.contains(.dacOverride) {
            return .ok(name, "missing, but CAP_DAC_OVERRIDE is held, which serves as well")
        }
        return .note(
            name, "missing: descriptors of other users' processes cannot be read",
            remedy: facts.rights.remedyForMissingCapabilities)
    }

    /// PTRACE_O_SUSPEND_SECCOMP (kernel/ptrace.c, check_ptrace_options).
    var suspending: Check {
        guard isAMD64 else { return .ok("cap_sys_admin", "not needed: only ptrace injection uses it") }
        let place = facts.surroundings
        let (obstacle, remedy): (String, String)
        if let error = facts.suspensionError, error == .ioError || error == .invalidArgument {
            let reason =
                facts.release.isBefore(4, 3)
                ? "Linux 4.3 brought it" : "CONFIG_CHECKPOINT_RESTORE is missing, or a filter"
            return .note(
                "cap_sys_admin",
                "no right helps: this kernel cannot suspend a target's seccomp filter (\(reason)), "
                    + "so ptrace injection leaves out targets with one",
                remedy: facts.hasPidfd ? "nothing to do: pidfd reaches them" : "Linux 5.6 has pidfd, which reaches them"
            )
        }
        if !facts.capabilities.contains(.sysAdmin) {
            (obstacle, remedy) = ("missing", facts.rights.adding(.sysAdmin))
        } else if place.hasOwnUsers {
            (obstacle, remedy) = ("held in this user namespace, which is not enough", place.toLeaveTheUserNamespace)
        } else if facts.seccomp != 0 {
            (obstacle, remedy) = ("held, but sockalive itself is under a filter", place.toRunWithoutFilter)
        } else if let error = facts.suspensionError {
            (obstacle, remedy) = (
                "held, but a target's filter cannot be suspended (\(error.name))",
                "look into the kernel's log for a security module"
            )
        } else {
            return .ok("cap_sys_admin", "held: a target's seccomp filter may be suspended")
        }
        return .note(
            "cap_sys_admin", "\(obstacle): ptrace injection leaves out targets with a seccomp filter",
            remedy: facts.hasPidfd ? "nothing to do: pidfd reaches them" : remedy)
    }

    /// Yama (Documentation/admin-guide/LSM/Yama.rst) restricts pidfd_getfd and ptrace alike.
    var yama: Check {
        let setting = "kernel.yama.ptrace_scope"
        switch facts.rights.yama {
        case nil: return .ok("yama", "not active: there is no \(setting)")
        case 0: return .ok("yama", "\(setting) is 0: no further limits")
        case let scope? where scope == 1 || scope == 2:
            guard !isPrivileged else { return .ok("yama", "\(setting) is \(scope): open to CAP_SYS_PTRACE") }
            let whom = scope == 1 ? "only its own children" : "no process at all"
            return .problem(
                "yama", "\(setting) is \(scope): without CAP_SYS_PTRACE sockalive may reach \(whom)",
                remedy: "\(facts.rights.adding(.sysPtrace)); or, on the host, sysctl -w \(setting)=0")
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

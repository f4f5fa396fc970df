import CSockalive

/// A set of capabilities (capabilities(7)).
struct Capabilities: OptionSet, Sendable {
    let rawValue: UInt64

    /// Each of these two opens `/proc/PID/fd` of other users' processes: the folder has mode 0500
    /// (fs/namei.c, generic_permission).
    static let dacReadSearch = Capabilities(rawValue: 1 << UInt64(CAP_DAC_READ_SEARCH))
    static let dacOverride = Capabilities(rawValue: 1 << UInt64(CAP_DAC_OVERRIDE))
    static let sysPtrace = Capabilities(rawValue: 1 << UInt64(CAP_SYS_PTRACE))
    /// Needed to suspend a target's seccomp filter, and to enter its network namespace.
    static let sysAdmin = Capabilities(rawValue: 1 << UInt64(CAP_SYS_ADMIN))
    /// Both are needed to attach a program to a cgroup (bpf(2), from Linux 5.8 on).
    static let bpf = Capabilities(rawValue: 1 << UInt64(CAP_BPF))
    static let netAdmin = Capabilities(rawValue: 1 << UInt64(CAP_NET_ADMIN))

    var readsEveryFolder: Bool { !isDisjoint(with: [.dacReadSearch, .dacOverride]) }

    /// The kernel's names, without `CAP_`, by number (linux/capability.h).
    private static let allNames: [StaticString] = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
        "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
        "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
        "CHECKPOINT_RESTORE",
    ]

    /// The names without `CAP_`, as `docker run --cap-add` takes them. A number that has no name yet is given as it is.
    var names: [String] {
        (0..<64).filter { rawValue & 1 << UInt64($0) != 0 }.map { number in
            number < Self.allNames.count ? "\(Self.allNames[number])" : "\(number)"
        }
    }
}

/// Capabilities (capabilities(7)) that matter here, of a set that a process has.
struct Capabilities: OptionSet, Sendable {
    let rawValue: UInt64

    /// To read `/proc/PID/fd` of other users' processes: the folder is theirs alone.
    static let dacReadSearch = Capabilities(rawValue: 1 << 2)
    static let sysPtrace = Capabilities(rawValue: 1 << 19)
    /// To suspend a target's seccomp filter, and to enter its network namespace.
    static let sysAdmin = Capabilities(rawValue: 1 << 21)
}

import SystemPackage

/// What there is to know of a machine, and of this process on it. Gathered in one place, judged in another
/// (``MachineChecks``), so that every judgement can be tested on any machine.
struct MachineFacts: Equatable, Sendable {
    enum Architecture: Equatable, Sendable {
        case amd64
        case other(String)
    }

    var release: UntrustedText
    var architecture: Architecture
    /// Why a system call does not answer on this very process; nil where it does.
    var pidfdOpenError: Errno?
    var pidfdGetfdError: Errno?
    var processMemoryError: Errno?
    /// The effective user.
    var uid: UInt32
    var capabilities: Capabilities
    /// 0 none, 1 strict, 2 filter.
    var seccomp: Int
    /// kernel.yama.ptrace_scope; nil where this kernel has no Yama.
    var yama: Int?
    var selinux: SELinux
    var appArmor: AppArmor
    var namespaces: NamespaceFacts
    /// The option of `/proc`; `.off` shows every process to everybody.
    var hidePID: HidePID
    /// net.ipv4.tcp_keepalive_*; nil where it could not be read.
    var keepalive: KeepaliveDefaults?

    var hasPidfd: Bool { pidfdOpenError == nil && pidfdGetfdError == nil }
}

struct SELinux: Equatable, Sendable {
    enum Mode: Equatable, Sendable {
        case absent, permissive, enforcing
    }

    var mode: Mode
    /// The boolean that takes ptrace away from everybody; nil where the policy has none.
    var denyPtrace: Bool?
    /// This process's own context.
    var context: UntrustedText?
}

struct AppArmor: Equatable, Sendable {
    var isEnabled: Bool
    /// This process's own profile, `unconfined` or `NAME (MODE)`.
    var profile: UntrustedText?
}

/// Whether this process lives in the machine's first namespaces; nil where that cannot be told.
struct NamespaceFacts: Equatable, Sendable {
    var isFirstPID: Bool?
    var isFirstUser: Bool?
    var isFirstNetwork: Bool?
}

/// The mount option hidepid of proc(5).
enum HidePID: String, Sendable {
    case off
    case noAccess = "noaccess"
    case invisible
    case ptraceable
}

/// Seconds, seconds, probes.
struct KeepaliveDefaults: Equatable, Sendable {
    var time: Int
    var interval: Int
    var probes: Int
}

import CSockalive
import Glibc
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

extension MachineFacts {
    /// - Parameters:
    ///   - sysfs: nil where `/sys` is not there, as in a chroot.
    static func gathered(procfs: ProcFS, sysfs: ProcFS?) -> MachineFacts {
        let status = try? procfs.status("self")
        return MachineFacts(
            release: UntrustedText((procfs.text("sys/kernel/osrelease") ?? []).dropTrailingNewlines),
            architecture: .here,
            pidfdOpenError: pidfdOpenError(),
            pidfdGetfdError: MethodChoice.borrowError(),
            processMemoryError: processMemoryError(procfs),
            uid: geteuid(),
            capabilities: status?.effectiveCapabilities ?? [],
            seccomp: status?.seccomp ?? 0,
            yama: procfs.number("sys/kernel/yama/ptrace_scope"),
            selinux: SELinux(procfs: procfs, sysfs: sysfs),
            appArmor: AppArmor(procfs: procfs, sysfs: sysfs),
            namespaces: NamespaceFacts(procfs: procfs),
            hidePID: HidePID(mountinfo: procfs.text("self/mountinfo") ?? []),
            keepalive: KeepaliveDefaults(procfs: procfs))
    }

    private static func pidfdOpenError() -> Errno? {
        let pidfd = sockalive_pidfd_open(getpid())
        if pidfd >= 0 { close(pidfd) }
        return error(pidfd)
    }

    /// What a kernel and its filters allow can only be tried, and on oneself it needs no rights.
    private static func processMemoryError(_ procfs: ProcFS) -> Errno? {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 8)
        defer { bytes.deallocate() }
        bytes.initializeMemory(as: UInt8.self, repeating: 1)
        let address = UInt64(UInt(bitPattern: bytes.baseAddress))
        do throws(Errno) {
            let memory = try TargetMemory(procfs: procfs, thread: "self", isWritten: true)
            try memory.write(UnsafeRawBufferPointer(bytes), to: address)
            try memory.read(address, into: bytes)
            return nil
        } catch {
            return error
        }
    }

    private static func error(_ status: Int32) -> Errno? {
        status < 0 ? Errno(rawValue: -status) : nil
    }
}

extension MachineFacts.Architecture {
    static var here: Self {
        #if arch(x86_64)
            .amd64
        #elseif arch(arm64)
            .other("arm64")
        #else
            .other("this architecture")
        #endif
    }
}

extension SELinux {
    fileprivate init(procfs: ProcFS, sysfs: ProcFS?) {
        let enforce = sysfs?.number("fs/selinux/enforce")
        // `0 1`: the value in force, and the one that waits for a commit.
        let denyPtrace = sysfs?.text("fs/selinux/booleans/deny_ptrace")?.first.map { $0 == UInt8(ascii: "1") }
        self.init(
            mode: enforce.map { $0 == 0 ? .permissive : .enforcing } ?? .absent, denyPtrace: denyPtrace,
            context: procfs.ownSecurityLabel)
    }
}

extension AppArmor {
    fileprivate init(procfs: ProcFS, sysfs: ProcFS?) {
        let enabled = sysfs?.text("module/apparmor/parameters/enabled")?.first == UInt8(ascii: "Y")
        self.init(isEnabled: enabled, profile: enabled ? procfs.ownSecurityLabel : nil)
    }
}

extension NamespaceFacts {
    /// The first PID and user namespaces have fixed numbers (include/linux/proc_ns.h), the first network
    /// namespace since Linux 6.18 (include/uapi/linux/nsfs.h); before that it is that of PID 1 or kthreadd.
    fileprivate init(procfs: ProcFS) {
        func inode(_ path: String, _ kind: StaticString) -> UInt64? {
            (try? procfs.link(path))?.inode(ofKind: kind)
        }
        isFirstPID = inode("self/ns/pid", "pid").map { $0 == 0xEFFF_FFFC }
        isFirstUser = inode("self/ns/user", "user").map { $0 == 0xEFFF_FFFD }
        let own = inode("self/ns/net", "net")
        let first = isFirstPID == true ? inode("1/ns/net", "net") ?? inode("2/ns/net", "net") : nil
        isFirstNetwork = own == 0xEFFF_FFF9 ? true : own.flatMap { own in first.map { $0 == own } }
    }
}

extension HidePID {
    /// The last mount on `/proc` is the one that is seen (proc_pid_mountinfo(5)); kernels before 5.8 show numbers.
    init(mountinfo: [UInt8]) {
        self = .off
        for line in mountinfo.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: " "))
            guard fields.count > 6, fields[4].elementsEqual("/proc".utf8), let options = fields.last else { continue }
            let option = options.split(separator: UInt8(ascii: ",")).first { $0.starts(with: "hidepid=".utf8) }
            self = Self(option: option.map { String(decoding: $0.dropFirst(8), as: UTF8.self) } ?? "off")
        }
    }

    private init(option: String) {
        switch option {
        case "1": self = .noAccess
        case "2": self = .invisible
        case "4": self = .ptraceable
        default: self = HidePID(rawValue: option) ?? .off
        }
    }
}

extension KeepaliveDefaults {
    fileprivate init?(procfs: ProcFS) {
        guard let time = procfs.number("sys/net/ipv4/tcp_keepalive_time"),
            let interval = procfs.number("sys/net/ipv4/tcp_keepalive_intvl"),
            let probes = procfs.number("sys/net/ipv4/tcp_keepalive_probes")
        else { return nil }
        self.init(time: time, interval: interval, probes: probes)
    }
}

extension ProcFS {
    /// What a security module calls this process (`/proc/PID/attr/current`); nil where none has a name for it.
    fileprivate var ownSecurityLabel: UntrustedText? {
        let label = text("self/attr/current")?.prefix { $0 != 0 && $0 != UInt8(ascii: "\n") }
        return label.flatMap { $0.isEmpty ? nil : UntrustedText($0) }
    }
}

import CSockalive
import Glibc
import SystemPackage

/// The facts of a machine, and of this process on it. ``MachineChecks`` judges them, so every judgement can be tested
/// on any machine.
struct MachineFacts: Equatable, Sendable {
    enum Architecture: Equatable, Sendable {
        case amd64
        case other(String)
    }

    var release: KernelVersion
    var architecture: Architecture
    /// Why a system call fails on this process itself; nil if it works.
    var pidfdOpenError: Errno?
    var pidfdGetfdError: Errno?
    var processMemoryError: Errno?
    /// Why this process may not suspend a target's seccomp filter; nil if it may, or where ptrace injection is
    /// impossible.
    var suspensionError: Errno?
    var rights: MissingRights
    /// 0 none, 1 strict, 2 filter.
    var seccomp: Int
    var selinux: SELinux
    var appArmor: AppArmor
    /// The mount option of `/proc`. With `.off` every user sees every process.
    var hidePID: HidePID
    /// How many processes `/proc` shows.
    var processCount: Int
    /// net.ipv4.tcp_keepalive_*; nil if it could not be read.
    var keepalive: KeepaliveDefaults?

    var hasPidfd: Bool { pidfdOpenError == nil && pidfdGetfdError == nil }
    var uid: UInt32 { rights.users.effective }
    var capabilities: Capabilities { rights.held }
    var surroundings: Surroundings { rights.surroundings }

    /// Whether processes may be there that this one does not see.
    var hidesProcesses: Bool { hidePID != .off && !capabilities.contains(.sysPtrace) }
}

struct SELinux: Equatable, Sendable {
    enum Mode: Equatable, Sendable {
        case absent, permissive, enforcing
    }

    var mode: Mode
    /// The boolean that denies ptrace to all processes; nil if the policy has none.
    var denyPtrace: Bool?
    /// The context of this process.
    var context: UntrustedText?
}

struct AppArmor: Equatable, Sendable {
    var isEnabled: Bool
    /// The profile of this process: `unconfined` or `NAME (MODE)`.
    var profile: UntrustedText?
}

/// The mount option hidepid of proc(5).
enum HidePID: String, Sendable {
    case off
    case noAccess = "noaccess"
    case invisible
    case ptraceable
}

/// Time and interval in seconds, and the number of probes.
struct KeepaliveDefaults: Equatable, Sendable {
    var time: Int
    var interval: Int
    var probes: Int
}

extension MachineFacts {
    /// - Parameter sysfs: nil if there is no `/sys`, as in a chroot.
    static func gathered(procfs: ProcFS, sysfs: ProcFS?) -> MachineFacts {
        return MachineFacts(
            release: KernelVersion.running,
            architecture: .here,
            pidfdOpenError: pidfdOpenError(),
            pidfdGetfdError: MethodChoice.borrowError(),
            processMemoryError: processMemoryError(procfs),
            suspensionError: suspensionError(),
            rights: MissingRights(procfs: procfs),
            seccomp: (try? procfs.status("self"))?.seccomp ?? 0,
            selinux: SELinux(procfs: procfs, sysfs: sysfs),
            appArmor: AppArmor(procfs: procfs, sysfs: sysfs),
            hidePID: HidePID(mountinfo: procfs.text("self/mountinfo") ?? []),
            processCount: ((try? procfs.numbers(in: ".")) ?? []).count,
            keepalive: KeepaliveDefaults(procfs: procfs))
    }

    private static func pidfdOpenError() -> Errno? {
        let pidfd = sockalive_pidfd_open(getpid())
        if pidfd >= 0 { close(pidfd) }
        return error(pidfd)
    }

    /// Writes and reads this process's own memory, which needs no rights. Only a trial shows what the kernel and its
    /// filters allow.
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

    private static func suspensionError() -> Errno? {
        guard Method.ptrace.isForThisArchitecture else { return nil }
        let error = sockalive_suspension_error()
        return error == 0 ? nil : Errno(rawValue: error)
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
        // The file has two values, as in `0 1`: the current one, and the one that waits for a commit.
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

extension HidePID {
    /// The last mount on `/proc` is the visible one (proc_pid_mountinfo(5)). Kernels before 5.8 show numbers.
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

import Glibc
import SystemPackage

/// Why a guard cannot be made, read or removed, with the remedy.
package struct GuardFailure: Error, Equatable, Sendable {
    package enum Kind: Sendable {
        /// A right is missing (exit 77).
        case permission
        /// This kernel cannot, or this machine is set up otherwise (exit 69).
        case unsupported
        case other
    }

    package let kind: Kind
    package let message: String
    package let remedy: String?

    init(_ kind: Kind, _ message: String, remedy: String? = nil) {
        self.kind = kind
        self.message = message
        self.remedy = remedy
    }

    package var line: String { remedy.map { "\(message); \($0)" } ?? message }
}

/// Turns an errno of bpf(2) into what an administrator can act on.
struct GuardDiagnosis {
    let procfs: ProcFS
    private let release: KernelVersion

    init(procfs: ProcFS, release: KernelVersion = .running) {
        self.procfs = procfs
        self.release = release
    }

    /// nil where this kernel is new enough: bpf_setsockopt of the keepalive options came with Linux 5.9.
    var oldKernel: GuardFailure? {
        guard release.isBefore(5, 9) else { return nil }
        return GuardFailure(
            .unsupported,
            "a guard needs Linux 5.9, and this kernel is \(release.escaped)",
            remedy: "sockalive watch gives it to connections within seconds of their birth")
    }

    /// - Throws: if this kernel does not tell what a program has chosen. Only kernels that may be too old are tried.
    func checkOwnChoice() throws(GuardFailure) {
        guard release.isBefore(6, 1) else { return }
        switch GuardTrial(procfs: procfs) {
        case .worked: return
        case .onlyOverriding: break
        case .failed(let failure):
            throw GuardFailure(
                failure.kind,
                "whether this kernel (\(release.escaped)) tells a guard what a program has chosen could not "
                    + "be tried: \(failure.message)",
                remedy: (failure.remedy.map { "\($0); or " } ?? "") + "use --override, which needs no trial")
        }
        throw GuardFailure(
            .unsupported,
            "this kernel (\(release.escaped)) does not tell a guard whether a program has turned keepalive on itself: "
                + "Linux 6.1 does", remedy: "use --override to set it in any case, or sockalive watch")
    }

    static func noCGroups(_ error: Errno) -> GuardFailure {
        GuardFailure(
            error.isPermission ? .permission : .unsupported,
            "no cgroup2 file system is mounted here with its root (\(error)), and a guard belongs to a cgroup",
            remedy: "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified "
                + "(in a container: run it on the host)")
    }

    func failure(_ action: String, _ error: Errno, log: String = "") -> GuardFailure {
        switch error {
        case .notPermitted: return denied(action, error)
        case .permissionDenied where log.isEmpty: return denied(action, error)
        case .noFunction:
            return GuardFailure(
                .unsupported, "\(action): this kernel, or a sandbox, has no bpf(2) (\(error.name))",
                remedy: "run it outside the sandbox; or use sockalive watch")
        case _ where log.isEmpty && error == .invalidArgument, .notSupported:
            return GuardFailure(
                .unsupported,
                "\(action): this kernel (\(release.escaped)) cannot do it (\(error.name)): it may lack CONFIG_CGROUP_BPF",
                remedy: "use sockalive watch")
        case .noMemory:
            return GuardFailure(.other, "\(action): \(error)", remedy: "make memory free")
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem:
            return GuardFailure(.other, "\(action): \(error)", remedy: "raise the limit of open files (ulimit -n)")
        case .noSuchFileOrDirectory, .operationNotSupportedByDevice:
            return GuardFailure(.other, "\(action): the cgroup is gone (\(error.name))", remedy: "look for it again")
        default:
            let words = log.split(separator: "\n").suffix(4).joined(separator: " / ")
            return GuardFailure(
                .other, "\(action): \(error)" + (words.isEmpty ? "" : ": \(UntrustedText(words).escaped)"))
        }
    }

    private func denied(_ action: String, _ error: Errno) -> GuardFailure {
        let surroundings = Surroundings.here(procfs)
        let status = try? procfs.status("self")
        let isRoot = status?.users.effective == 0
        if surroundings.hasOwnUsers {
            return GuardFailure(
                .permission, "\(action): the rights of a user namespace do not count for bpf(2) (\(error.name))",
                remedy: surroundings.toLeaveTheUserNamespace)
        }
        let own = status?.permittedCapabilities ?? []
        let needed = own.contains(.sysAdmin) ? [] : Capabilities([.bpf, .netAdmin]).subtracting(own)
        if !needed.isEmpty {
            let names = needed.names.map { "CAP_\($0)" }.joined(separator: " and ")
            return GuardFailure(
                .permission, "\(action): \(names) is missing, or else CAP_SYS_ADMIN (\(error.name))",
                remedy: surroundings.toAdd(needed, isRoot: isRoot))
        }
        if release.isBefore(5, 11), let limit = Self.lockedMemoryLimit {
            return GuardFailure(
                .permission,
                "\(action): \(limit) bytes of locked memory are not enough (\(error.name), before Linux 5.11)",
                remedy: "ulimit -l unlimited, or LimitMEMLOCK=infinity in a unit, or with CAP_SYS_RESOURCE")
        }
        if let lockdown = lockdown {
            return GuardFailure(
                .permission, "\(action): the kernel is locked down (\(lockdown)) and refuses it (\(error.name))",
                remedy: "boot without lockdown=, or use sockalive watch")
        }
        return GuardFailure(
            .permission,
            "\(action): refused although the rights are there (\(error.name)): by a seccomp filter or a "
                + "security module", remedy: surroundings.toRunWithoutFilter)
    }

    /// nil: none, or not to be read. The chosen level stands in brackets (Documentation/admin-guide/LSM).
    private var lockdown: String? {
        guard let text = try? ProcFS(root: "/sys/kernel/security").text("lockdown") else { return nil }
        let level = String(decoding: text, as: UTF8.self).split(separator: "[").last?.prefix { $0 != "]" }
        return level.flatMap { $0 == "none" ? nil : UntrustedText(String($0)).escaped }
    }

    /// nil: unlimited.
    private static var lockedMemoryLimit: UInt64? {
        var limit = rlimit()
        let resource = __rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue)
        return getrlimit(resource, &limit) == 0 && limit.rlim_cur != .max ? UInt64(limit.rlim_cur) : nil
    }

    /// Before Linux 5.11 maps and programs count as locked memory, of which a process has 64 KiB or a few MiB. If the
    /// kernel refuses, the limit stays.
    func raiseLockedMemoryLimit() {
        guard release.isBefore(5, 11) else { return }
        var limit = rlimit(rlim_cur: .max, rlim_max: .max)
        setrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
    }
}

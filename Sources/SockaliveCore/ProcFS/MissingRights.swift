import Glibc
import SystemPackage

/// Why this process may not reach into another one, and what gives it the right in this place (kernel/ptrace.c,
/// __ptrace_may_access; security/commoncap.c, cap_ptrace_access_check).
///
/// Every sentence about missing rights comes from here. The judgement is pure.
struct MissingRights: Equatable, Sendable {
    /// The target, as far as its rights are known.
    struct Target: Equatable, Sendable {
        var users: ProcessStatus.IDs
        var groups: ProcessStatus.IDs
        /// nil if the text does not tell.
        var permitted: Capabilities?
        /// It belongs to a user namespace that is neither this process's own nor inside that.
        var isOutside = false
        var isUndumpable = false
    }

    /// This process's own.
    var users: ProcessStatus.IDs
    var groups: ProcessStatus.IDs
    var held: Capabilities
    /// kernel.yama.ptrace_scope; nil if this kernel has no Yama.
    var yama: Int?
    var surroundings: Surroundings
    /// This process's label in a security module (`/proc/PID/attr/current`); nil if it has none.
    var label: UntrustedText?
    /// nil: any process.
    var target: Target?

    /// What stands in the way. Each one is only looked at if those before do not explain the denial.
    enum Cause: Equatable {
        case yamaForbidsAll
        case userNamespace
        case otherUser
        case otherGroup
        /// Those that the target has and this process does not.
        case capabilities(Capabilities)
        case yama
        case undumpable
        /// The folder of descriptors has mode 0500.
        case folder
        /// Nothing in `/proc` explains it.
        case securityModule
    }

    var cause: Cause {
        if yama == 3 { return .yamaForbidsAll }
        let isOutside = target?.isOutside ?? false
        if isOutside { return .userNamespace }
        guard !held.contains(.sysPtrace) else {
            if !held.readsEveryFolder { return .folder }
            return surroundings.hasOwnUsers ? .userNamespace : .securityModule
        }
        guard let target, target.users.areAll(users.real) else { return .otherUser }
        if !target.groups.areAll(groups.real) { return .otherGroup }
        if let theirs = target.permitted, !theirs.isSubset(of: held) { return .capabilities(theirs.subtracting(held)) }
        if !target.isUndumpable, let yama, yama > 0 { return .yama }
        return .undumpable
    }

    /// Completes "no permission to reach into PID 42": for one target.
    var reason: String {
        switch cause {
        case .yamaForbidsAll: return "kernel.yama.ptrace_scope is 3"
        case .userNamespace: return "it does not belong to this user namespace"
        case .otherUser: return target.map { "it is user \($0.users.effective)'s" } ?? "it is another user's"
        case .otherGroup: return target.map { "it has group \($0.groups.effective)" } ?? "it has another group"
        case .capabilities(let more):
            let names = more.names.map { "CAP_\($0)" }
            let shown = names.prefix(3).joined(separator: ", ")
            return names.count > 3
                ? "it has \(shown) and \(names.count - 3) more capabilities that sockalive lacks"
                : "it has \(shown), which sockalive lacks"
        case .yama: return "kernel.yama.ptrace_scope is \(yama ?? 1)"
        case .undumpable:
            return "it is not dumpable (prctl(PR_SET_DUMPABLE), or a program that its user may not read)"
        case .folder: return "its /proc/PID/fd is open to its own user only"
        case .securityModule: return "and no missing right explains it"
        }
    }

    /// What to do about it here.
    var remedy: String {
        switch cause {
        case .yamaForbidsAll:
            return "kernel.yama.ptrace_scope is 3: nobody may, not even root, until the next boot; take it out of "
                + "/etc/sysctl.d"
        case .userNamespace:
            return "capabilities of this user namespace do not count for it: \(surroundings.toLeaveTheUserNamespace)"
        case .otherUser:
            let scope = yama.map { $0 > 0 ? " (kernel.yama.ptrace_scope is \($0))" : "" } ?? ""
            return adding(needsFolder ? [.sysPtrace, .dacReadSearch] : .sysPtrace) + scope
        case .otherGroup, .capabilities, .undumpable: return adding(.sysPtrace)
        case .yama: return "\(adding(.sysPtrace)); or, on the host, sysctl -w kernel.yama.ptrace_scope=0"
        case .folder:
            return "CAP_SYS_PTRACE alone does not open another user's /proc/PID/fd: \(adding(.dacReadSearch))"
        case .securityModule: return securityModuleRemedy
        }
    }

    /// How to get capabilities here.
    func adding(_ capabilities: Capabilities) -> String {
        surroundings.toAdd(capabilities, isRoot: users.effective == 0)
    }

    /// The capabilities that open processes of every user.
    var remedyForMissingCapabilities: String {
        var missing: Capabilities = held.readsEveryFolder ? [] : .dacReadSearch
        if !held.contains(.sysPtrace) { missing.insert(.sysPtrace) }
        return adding(missing)
    }

    /// The folder of descriptors belongs to the effective user of the target, or to root if that is not dumpable.
    private var needsFolder: Bool {
        guard !held.readsEveryFolder else { return false }
        guard let target else { return true }
        return (target.isUndumpable ? 0 : target.users.effective) != users.effective
    }

    /// What to do about a seccomp filter on this process itself that forbids pidfd_getfd or ptrace. The usual profiles
    /// of containers open both to a process with CAP_SYS_PTRACE.
    var remedyForOwnFilter: String {
        if surroundings.container == .nspawn {
            return "systemd-nspawn --system-call-filter=pidfd_getfd, or run it on the host itself"
        }
        let hasProfile = [.docker, .podman, .kubernetes].contains(surroundings.container)
        guard hasProfile, !held.contains(.sysPtrace) else { return surroundings.toRunWithoutFilter }
        return "the usual profile opens it to CAP_SYS_PTRACE: \(adding(.sysPtrace)); "
            + "else \(surroundings.toRunWithoutFilter)"
    }

    private var securityModuleRemedy: String {
        let label = label?.escaped ?? ""
        if label.hasSuffix("(enforce)") {
            let way = surroundings.container == .docker ? " (docker run --security-opt apparmor=unconfined)" : ""
            return "AppArmor confines sockalive by the profile \(label): look for apparmor=\"DENIED\" in the kernel's "
                + "log, and let the profile trace the agent\(way)"
        }
        if !label.isEmpty && label != "unconfined" && !label.contains(":unconfined_t:") {
            let way: String =
                switch surroundings.container {
                case .docker: " (docker run --security-opt label=disable)"
                case .podman: " (podman run --security-opt label=disable)"
                default: ""
                }
            return "a security module confines sockalive as \(label): ausearch -m avc names what is missing\(way)"
        }
        return "a security module may forbid it (SELinux, AppArmor, Landlock, a BPF policy): look into the audit log "
            + "and the kernel's log"
    }
}

// MARK: - Facts

extension MissingRights {
    /// - Parameter pid: the target; nil: any process.
    init(procfs: ProcFS, pid: Int32? = nil, surroundings: Surroundings? = nil) {
        let status = ProcessStatus(procfs.text("self/status") ?? [])
        let nobody = ProcessStatus.IDs(real: .max, effective: .max, saved: .max)
        users = status?.users ?? nobody
        groups = status?.groups ?? nobody
        held = status?.effectiveCapabilities ?? []
        yama = procfs.number("sys/kernel/yama/ptrace_scope")
        self.surroundings = surroundings ?? .here(procfs)
        label = procfs.ownSecurityLabel
        target = pid.flatMap { Target(pid: $0, procfs, hasOwnUsers: self.surroundings.hasOwnUsers) }
    }
}

extension MissingRights.Target {
    /// nil if it is gone.
    fileprivate init?(pid: Int32, _ procfs: ProcFS, hasOwnUsers: Bool) {
        guard let status = try? procfs.status("\(pid)") else { return nil }
        users = status.users
        groups = status.groups
        permitted = status.permittedCapabilities
        isOutside = hasOwnUsers && Self.isOutside(pid, procfs)
        // The folder of a process that is not dumpable belongs to root (fs/proc/base.c, task_dump_owner).
        isUndumpable = procfs.owner(of: "\(pid)/fd").map { $0 != status.users.effective } ?? false
    }

    /// The map of a user namespace inside this one leads to users of this one. A map that leads elsewhere belongs to
    /// a namespace outside. This file is open to all; `/proc/PID/ns/user` is not (fs/proc/base.c, proc_id_map_open).
    private static func isOutside(_ pid: Int32, _ procfs: ProcFS) -> Bool {
        guard let own = procfs.text("self/uid_map"), let map = procfs.text("\(pid)/uid_map"), map != own else {
            return false
        }
        return UserMap(map).leadsOutside(UserMap(own))
    }
}

/// `/proc/PID/uid_map`: ranges of users inside, and the first one outside of each (user_namespaces(7)).
struct UserMap {
    private let ranges: [(inside: UInt64, outside: UInt64, count: UInt64)]

    init(_ text: [UInt8]) {
        ranges = text.split(separator: UInt8(ascii: "\n")).compactMap { line in
            let numbers = line.split(separator: UInt8(ascii: " ")).compactMap { $0.decimal(UInt64.self) }
            return numbers.count == 3 ? (numbers[0], numbers[1], numbers[2]) : nil
        }
    }

    /// Whether a user outside of this map is not a user inside of the other. An unmapped user is 4294967295.
    func leadsOutside(_ other: UserMap) -> Bool {
        ranges.contains { range in
            !other.ranges.contains {
                $0.inside <= range.outside && range.outside &+ range.count <= $0.inside &+ $0.count
            }
        }
    }
}

extension ProcFS {
    /// This process's label in a security module (`/proc/PID/attr/current`); nil if it has none.
    var ownSecurityLabel: UntrustedText? {
        let label = text("self/attr/current")?.prefix { $0 != 0 && $0 != UInt8(ascii: "\n") }
        return label.flatMap { $0.isEmpty ? nil : UntrustedText($0) }
    }

    /// The user to whom a file belongs (stat(2)).
    fileprivate func owner(of path: String) -> UInt32? {
        var status = stat()
        return fstatat(root.rawValue, path, &status, 0) == 0 ? status.st_uid : nil
    }
}

import SystemPackage

/// The rights of this process (credentials(7), capabilities(7)), for comparison with those of a target's owner.
struct OwnRights: Sendable {
    let users: ProcessStatus.IDs
    private let capabilities: Capabilities
    private let userNamespace: [UInt8]?
    /// The parent process may suspend a target's seccomp filter, and this process may not. So a target with a filter is
    /// left to the parent.
    let leavesFiltersToParent: Bool

    /// If `/proc` does not show a right, this process counts as having more rights than any owner.
    ///
    /// - Parameter parent: the rights of the process that started this one as a worker; nil if there is none.
    init(procfs: ProcFS, parent: OwnRights? = nil) {
        let status = try? procfs.status("self")
        users = status?.users ?? ProcessStatus.IDs(real: .max, effective: .max, saved: .max)
        capabilities = status?.permittedCapabilities ?? Capabilities(rawValue: .max)
        userNamespace = try? procfs.link("self/ns/user")
        leavesFiltersToParent =
            !capabilities.contains(.sysAdmin) && parent?.capabilities.contains(.sysAdmin) ?? false
    }

    /// Whether the owner of a thread may do everything that this process may. Then the owner gains nothing by misusing
    /// this process. False in doubt.
    ///
    /// - Parameter thread: `PID` or `PID/task/TID`.
    func areCovered(by status: ProcessStatus, _ thread: String, _ procfs: ProcFS) -> Bool {
        guard status.users.areAll(users.effective) else { return false }
        if capabilities.isEmpty { return true }
        guard let theirs = status.permittedCapabilities, theirs.isSuperset(of: capabilities), let userNamespace,
            let namespace = try? procfs.link("\(thread)/ns/user")
        else { return false }
        return namespace == userNamespace
    }

    /// Whether this process must give up a right to become a process of that owner.
    func exceed(_ owner: Owner) -> Bool {
        !(users.areAll(owner.uid) && capabilities.isEmpty)
    }
}

/// The owner of a process: the IDs that the kernel compares before one process may access another
/// (kernel/ptrace.c, __ptrace_may_access).
struct Owner: Hashable, Sendable {
    let uid: UInt32
    let gid: UInt32
    let groups: [UInt32]

    /// nil if real, effective and saved differ: then the kernel asks for CAP_SYS_PTRACE.
    init?(_ status: ProcessStatus) {
        guard let uid = status.users.common, let gid = status.groups.common else { return nil }
        self.uid = uid
        self.gid = gid
        groups = status.supplementaryGroups
    }
}

/// With whose rights a target was reached.
package enum Rights: String, BitwiseCopyable, Sendable {
    /// No more than its owner has.
    case owner
    /// This program's own, which are more. Then only the checks of the method protect against a hostile target.
    case kept
}

/// User names, read from the text of `/etc/passwd` (passwd(5)).
///
/// getpwnam(3) is not used: a static program would need the machine's own NSS libraries for it. Users that only a
/// directory service knows are given by number.
package enum UserTable {
    package static func uid(of name: String, in passwd: some Sequence<UInt8>) -> UInt32? {
        for line in Array(passwd).split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: ":"), maxSplits: 3, omittingEmptySubsequences: false)
            guard fields.count == 4, fields[0].elementsEqual(name.utf8) else { continue }
            return fields[2].decimal()
        }
        return nil
    }

    /// The user's number: `name` itself if it is a number, else from `/etc/passwd`; nil if no user has this name.
    package static func uid(of name: String, passwd: FilePath = "/etc/passwd") -> UInt32? {
        if let number = name.utf8.decimal(UInt32.self) { return number }
        guard let folder = try? ProcFS(root: passwd.removingLastComponent()), let file = passwd.lastComponent,
            let uid = try? folder.read(file.string, { Self.uid(of: name, in: $0) })
        else { return nil }
        return uid
    }
}

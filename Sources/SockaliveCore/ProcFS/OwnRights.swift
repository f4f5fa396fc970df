import SystemPackage

/// What this process may do (credentials(7), capabilities(7)), beside what the owner of a target may.
struct OwnRights: Sendable {
    let users: ProcessStatus.IDs
    private let capabilities: Capabilities
    private let userNamespace: [UInt8]?
    /// The process that this one works for may suspend a target's seccomp filter, and this one may not: what depends on
    /// that is better done there.
    let leavesFiltersToParent: Bool

    /// What `/proc` does not tell is taken for more than any owner has.
    ///
    /// - Parameter parent: what the process may do that this one works for; nil: it works for itself.
    init(procfs: ProcFS, parent: OwnRights? = nil) {
        let status = try? procfs.status("self")
        users = status?.users ?? ProcessStatus.IDs(real: .max, effective: .max, saved: .max)
        capabilities = status?.permittedCapabilities ?? Capabilities(rawValue: .max)
        userNamespace = try? procfs.link("self/ns/user")
        leavesFiltersToParent =
            !capabilities.contains(.sysAdmin) && parent?.capabilities.contains(.sysAdmin) ?? false
    }

    /// Whether the owner of a thread may do all that this process may: nothing can be gained by turning this
    /// process's work to another end. In doubt it is not so.
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

    /// Whether this process has anything to give up to become a process of that owner.
    func exceed(_ owner: Owner) -> Bool {
        !(users.areAll(owner.uid) && capabilities.isEmpty)
    }
}

/// Whose a process is: what the kernel compares before it lets one process reach into another
/// (kernel/ptrace.c, __ptrace_may_access).
struct Owner: Hashable, Sendable {
    let uid: UInt32
    let gid: UInt32
    let groups: [UInt32]

    /// nil where real, effective and saved differ: there the kernel asks for CAP_SYS_PTRACE.
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
    /// This program's own, which are more. What stands against a hostile target then are the guards of the method.
    case kept
}

/// User names, read from the text of `/etc/passwd` (passwd(5)).
///
/// Not by getpwnam(3): a static program would need the machine's own NSS libraries for that.
/// Users that only a directory service knows are named by number.
package enum UserTable {
    package static func uid(of name: String, in passwd: some Sequence<UInt8>) -> UInt32? {
        for line in Array(passwd).split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: ":"), maxSplits: 3, omittingEmptySubsequences: false)
            guard fields.count == 4, fields[0].elementsEqual(name.utf8) else { continue }
            return fields[2].decimal()
        }
        return nil
    }

    /// The user's number: `name` itself if it is one, else from `/etc/passwd`; nil if nobody is called so.
    package static func uid(of name: String, passwd: FilePath = "/etc/passwd") -> UInt32? {
        if let number = name.utf8.decimal(UInt32.self) { return number }
        guard let folder = try? ProcFS(root: passwd.removingLastComponent()), let file = passwd.lastComponent,
            let uid = try? folder.read(file.string, { Self.uid(of: name, in: $0) })
        else { return nil }
        return uid
    }
}

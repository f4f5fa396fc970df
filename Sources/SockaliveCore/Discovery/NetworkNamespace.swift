import SystemPackage

/// The network namespace of a process, as far as it can be told.
enum NetworkNamespace: Hashable {
    /// The inode of `/proc/PID/ns/net`.
    case inode(UInt64)
    /// The link may not be read. Each namespace has `/proc/PID/net` files of its own (fs/proc/proc_net.c), and
    /// anybody may ask for their numbers: the same number is the same namespace.
    case files(FileIdentity)

    var inode: UInt64? {
        guard case .inode(let inode) = self else { return nil }
        return inode
    }
}

/// Tells namespaces apart.
struct NetworkNamespaces {
    let procfs: ProcFS
    /// This process's own, where that is known.
    let own: NetworkNamespace?
    private let ownFiles: FileIdentity?

    init(procfs: ProcFS) {
        self.procfs = procfs
        own = procfs.isOwn ? Self.linked("self", procfs) : nil
        ownFiles = procfs.isOwn ? procfs.identity("self/net/tcp") : nil
    }

    /// nil if the process is gone.
    func namespace(of pid: Int32) -> NetworkNamespace? {
        if let linked = Self.linked("\(pid)", procfs) { return linked }
        let folder = procfs.networkFolder(of: pid)
        if let linked = Self.linked(folder, procfs) { return linked }
        guard let files = procfs.identity("\(folder)/net/tcp") else { return nil }
        return files == ownFiles ? own : .files(files)
    }

    private static func linked(_ process: String, _ procfs: ProcFS) -> NetworkNamespace? {
        (try? procfs.link("\(process)/ns/net"))?.inode(ofKind: "net").map { .inode($0) }
    }
}

extension ProcFS {
    /// Where the process's network namespace shows: `PID`, or `PID/task/TID` of a thread that lives, where the
    /// main thread has exited and left its namespaces (kernel/exit.c, exit_task_namespaces).
    func networkFolder(of pid: Int32) -> String {
        guard identity("\(pid)/net/tcp") == nil else { return "\(pid)" }
        let threads = ((try? numbers(in: "\(pid)/task")) ?? []).map { "\(pid)/task/\($0)" }
        return threads.first { identity("\($0)/net/tcp") != nil } ?? "\(pid)"
    }
}

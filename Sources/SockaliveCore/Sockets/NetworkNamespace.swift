import Glibc
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

    /// A socket in the namespace: this process's own, or made by a thread that enters it.
    ///
    /// - Parameter members: processes that were in it; who is elsewhere by now, or another process, is passed over.
    func diagSocket(in namespace: NetworkNamespace, seenBy members: [Int32]) throws(Errno) -> SockDiagSocket {
        if namespace == own { return try SockDiagSocket() }
        var lastError = Errno.noSuchProcess
        for pid in members {
            let file = openat(
                procfs.root.rawValue, "\(procfs.networkFolder(of: pid))/ns/net", O_RDONLY | O_CLOEXEC)
            guard file >= 0 else {
                lastError = Errno(rawValue: errno)
                continue
            }
            defer { close(file) }
            var status = stat()
            guard fstat(file, &status) == 0, namespace == .inode(UInt64(status.st_ino)) else { continue }
            return try SockDiagSocket(namespace: file)
        }
        throw lastError
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

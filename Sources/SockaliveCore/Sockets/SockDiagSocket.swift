import CSockalive
import Glibc
import SystemPackage

/// A NETLINK_SOCK_DIAG socket: it sends a request and receives datagrams.
struct SockDiagSocket: ~Copyable {
    private let descriptor: Int32
    /// Of the socket's network namespace.
    let interfaces: InterfaceNames
    private var sequence: UInt32 = 0
    /// A dump's datagrams are at most 32 KiB (net/netlink/af_netlink.c, netlink_dump).
    private var buffer = [UInt8](repeating: 0, count: 32 * 1024)

    /// The kernel replies at once. A sandbox that emulates it might never reply.
    private static let timeout = timeval(tv_sec: 5, tv_usec: 0)
    private static let maxAttempts = 3

    /// - Parameter namespace: a descriptor of `/proc/PID/ns/net`; nil for this process's own namespace.
    init(namespace: Int32? = nil) throws(Errno) {
        let descriptor = try Self.open(in: namespace)
        try? SocketOption.receiveTimeout.set(Self.timeout, on: descriptor)
        self.descriptor = descriptor
        interfaces = InterfaceNames(socket: descriptor)
    }

    deinit {
        close(descriptor)
    }

    /// A netlink socket stays in the namespace of its creation (netlink(7)). So a thread enters the namespace, creates
    /// the socket, and ends.
    private static func open(in namespace: Int32?) throws(Errno) -> Int32 {
        let descriptor: Int32? =
            if let namespace {
                try? onOwnThread {
                    let status = sockalive_enter_network(namespace)
                    return status < 0 ? status : sockalive_diag_socket()
                }
            } else {
                sockalive_diag_socket()
            }
        guard let descriptor else { throw .resourceTemporarilyUnavailable }
        guard descriptor >= 0 else { throw Errno(rawValue: -descriptor) }
        return descriptor
    }

    /// Walks the whole table. Starts again if the kernel says that the table changed meanwhile.
    ///
    /// - Parameter body: gets each socket. After a restart it may get a socket again.
    mutating func dump(
        states: Set<SocketRow.State>, ports: Set<UInt16>?, _ body: (SockDiagMessage) -> Void
    ) throws(Errno) {
        for _ in 0..<Self.maxAttempts {
            sequence += 1
            let request = SockDiagRequest.dump(states: states, ports: ports, sequence: sequence)
            if try ask(request, isDump: true, body) { return }
        }
    }

    /// The connection between two endpoints; nil if there is none.
    mutating func row(
        family: IPAddress.Family, local: Endpoint, remote: Endpoint, interface: NetworkInterface? = nil
    ) throws(Errno) -> SocketRow? {
        try connection(family, local, remote, interface, \.row).map(interfaces.naming)
    }

    /// The tcp_info of the connection that a row describes; nil if the connection is gone or is another one.
    mutating func tcpInfo(of row: SocketRow) throws(Errno) -> TCPInfo? {
        try connection(row.family, row.local, row.remote, row.interface) { message in
            let isSame = message.inode == row.inode && (row.cookie ?? message.cookie) == message.cookie
            return isSame ? message.tcpInfo : nil
        }
    }

    private mutating func connection<Value>(
        _ family: IPAddress.Family, _ local: Endpoint, _ remote: Endpoint, _ interface: NetworkInterface?,
        _ read: (SockDiagMessage) -> Value?
    ) throws(Errno) -> Value? {
        sequence += 1
        let request = SockDiagRequest.exact(
            family: family, local: local, remote: remote, interface: interface?.index ?? 0, sequence: sequence)
        var value: Value?
        do {
            _ = try ask(request, isDump: false) { value = read($0) }
        } catch .noSuchFileOrDirectory {
            return nil
        }
        return value
    }

    /// - Returns: whether the reply is complete and consistent.
    private mutating func ask(
        _ request: [UInt8], isDump: Bool, _ body: (SockDiagMessage) -> Void
    ) throws(Errno) -> Bool {
        guard send(descriptor, request, request.count, 0) == request.count else { throw Errno(rawValue: errno) }
        var reply = SockDiagReply(sequence: sequence)
        var isWhole = true
        while true {
            guard let datagram = try receive() else {
                isWhole = false
                if isDump { continue } else { return false }
            }
            let progress = buffer.withUnsafeBytes { bytes in
                reply.read(UnsafeRawBufferPointer(rebasing: bytes[..<datagram]), body)
            }
            switch progress {
            case .more where isDump: continue
            case .more: return true
            case .done(let isConsistent): return isConsistent && isWhole
            case .failed(let error): throw error
            }
        }
    }

    /// - Returns: the datagram's length; nil if it did not fit and is lost. The buffer is then large enough for the
    ///   next.
    private mutating func receive() throws(Errno) -> Int? {
        while true {
            // With MSG_TRUNC the result is the true length (recv(2)).
            let count = buffer.withUnsafeMutableBytes {
                recv(descriptor, $0.baseAddress, $0.count, Int32(MSG_TRUNC))
            }
            if count > buffer.count {
                buffer = [UInt8](repeating: 0, count: count)
                return nil
            }
            if count > 0 { return count }
            if count < 0 && errno == EINTR { continue }
            throw count < 0 ? Errno(rawValue: errno) : .ioError
        }
    }
}

/// The network namespace of a process.
enum NetworkNamespace: Hashable {
    /// The inode of `/proc/PID/ns/net`.
    case inode(UInt64)
    /// Used if the link may not be read. Each namespace has its own `/proc/PID/net` files (fs/proc/proc_net.c), and
    /// every user may read their device and inode. Equal numbers mean the same namespace.
    case files(FileIdentity)

    var inode: UInt64? {
        guard case .inode(let inode) = self else { return nil }
        return inode
    }
}

/// Identifies the network namespaces of processes.
struct NetworkNamespaces {
    let procfs: ProcFS
    /// This process's own namespace; nil if it is unknown.
    let own: NetworkNamespace?
    private let ownFiles: FileIdentity?

    init(procfs: ProcFS) {
        self.procfs = procfs
        own = procfs.isOwn ? Self.linked("self", procfs) : nil
        ownFiles = procfs.isOwn ? procfs.identity("self/net/tcp") : nil
    }

    /// nil if the process is gone.
    func namespace(of pid: Int32) -> NetworkNamespace? {
        WorkerProgress.enter(.namespace, pid)
        if let linked = Self.linked("\(pid)", procfs) { return linked }
        return procfs.inNetworkFolder(of: pid) { folder in
            if let linked = Self.linked(folder, procfs) { return linked }
            guard let files = procfs.identity("\(folder)/net/tcp") else { return nil }
            return files == ownFiles ? own : .files(files)
        }
    }

    /// Equal for all processes of a namespace; nil if the process is gone, or only its main thread is.
    func files(of pid: Int32) -> FileIdentity? { procfs.identity("\(pid)/net/tcp") }

    /// A socket in the namespace. For a foreign namespace, a thread enters it and creates the socket.
    ///
    /// - Parameter members: processes that were in the namespace. A process that has left it, or whose PID was reused,
    ///   is skipped.
    func diagSocket(in namespace: NetworkNamespace, seenBy members: [Int32]) throws(Errno) -> SockDiagSocket {
        if namespace == own { return try SockDiagSocket() }
        var lastError = Errno.noSuchProcess
        for pid in members {
            WorkerProgress.enter(.namespace, pid)
            let opened = procfs.inNetworkFolder(of: pid) { folder -> Int32? in
                do throws(Errno) {
                    return try procfs.open("\(folder)/ns/net")
                } catch {
                    lastError = error
                    return nil
                }
            }
            guard let file = opened else { continue }
            defer { close(file) }
            var status = stat()
            guard fstat(file, &status) == 0, namespace == .inode(UInt64(status.st_ino)) else { continue }
            WorkerProgress.enter(.socketTable)
            return try SockDiagSocket(namespace: file)
        }
        throw lastError
    }

    private static func linked(_ process: String, _ procfs: ProcFS) -> NetworkNamespace? {
        (try? procfs.link("\(process)/ns/net"))?.inode(ofKind: "net").map { .inode($0) }
    }
}

extension ProcFS {
    /// What a folder tells of the process's network namespace. Where that is a thread's, and the thread ends before it
    /// tells, another one is asked: threads may live for a millisecond each.
    ///
    /// - Parameter body: nil where the folder tells nothing.
    func inNetworkFolder<Value, Failure: Error>(
        of pid: Int32, _ body: (String) throws(Failure) -> Value?
    ) throws(Failure) -> Value? {
        for _ in 0..<Self.maxEndedThreads {
            let folder = networkFolder(of: pid)
            if let value = try body(folder) { return value }
            guard hasEnded(folder), threadCount(of: pid) > 1 else { return nil }
        }
        return nil
    }

    private static var maxEndedThreads: Int { 50 }

    /// The folder that shows the process's network namespace: `PID`. If the main thread has exited, it has left its
    /// namespaces (kernel/exit.c, exit_task_namespaces); then it is `PID/task/TID` of a living thread.
    private func networkFolder(of pid: Int32) -> String {
        guard identity("\(pid)/net/tcp") == nil else { return "\(pid)" }
        let threads = ((try? numbers(in: "\(pid)/task")) ?? []).map { "\(pid)/task/\($0)" }
        return threads.first { identity("\($0)/net/tcp") != nil } ?? "\(pid)"
    }
}

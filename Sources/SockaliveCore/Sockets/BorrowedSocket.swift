import CSockalive
import Glibc
import SystemPackage

/// A duplicate of another process's descriptor, borrowed by pidfd_getfd(2).
///
/// It shares the open file description, so its status flags are never changed. It is closed at once: while it is open,
/// the owner's close(2) sends no FIN.
///
/// If this process dies while it holds one, the kernel closes it. The target was never stopped, and each setsockopt is
/// atomic. A death between two setsockopt calls leaves keepalive on with partly old values; the next run completes
/// them.
struct BorrowedSocket: ~Copyable, SocketOptions {
    let descriptor: Int32
    let inode: UInt64
    /// The user who created the socket; nil where nobody had to ask.
    private let owner: UInt32?
    /// It makes all calls.
    private let thread: WorkerThread

    /// - Parameters:
    ///   - pidfd: the process or thread (PIDFD_THREAD) that owns the descriptor table.
    ///   - identity: the socket that `fd` must be.
    ///   - thread: the caller, which has said where it is.
    /// - Throws: `Errno`; `staleNFSFileHandle` (ESTALE) if `fd` is another file by now.
    init(pidfd: Int32, fd: Int32, identity: SocketIdentity, thread: WorkerThread = .main) throws {
        let copy = sockalive_pidfd_getfd(pidfd, fd)
        guard copy >= 0 else { throw Errno(rawValue: -copy) }
        thread.enter(next: .options)
        // The number may have been reused since discovery: only the file itself says which it is.
        var status = stat()
        let cookie = identity.cookie.map { _ in Self.cookie(of: copy) } ?? nil
        let isKnown = cookie != nil && cookie == identity.cookie
        guard isKnown || Self.is(copy, identity, hasCookie: cookie != nil, &status) else {
            Self.close(copy, thread)
            throw Errno.staleNFSFileHandle
        }
        descriptor = copy
        inode = identity.inode
        owner = isKnown ? nil : status.st_uid
        self.thread = thread
    }

    /// Whether the descriptor is the socket with that inode, though its cookie does not say so: it is unknown; or, for
    /// an MPTCP socket, the table lists the subflows under the inode of the MPTCP socket, each with its own cookie.
    ///
    /// No two sockets ever have the same cookie (net/core/sock_diag.c, __sock_gen_cookie; since Linux 5.4 in all network
    /// namespaces together). So one that is right needs no look at the inode, which is given again.
    private static func `is`(
        _ descriptor: Int32, _ identity: SocketIdentity, hasCookie: Bool, _ status: inout stat
    ) -> Bool {
        fstat(descriptor, &status) == 0 && status.st_ino == identity.inode && status.st_mode & S_IFMT == S_IFSOCK
            && (!hasCookie || isMultipath(descriptor))
    }

    /// SO_COOKIE; nil before Linux 4.12.
    var cookie: UInt64? { Self.cookie(of: descriptor) }

    private static func cookie(of descriptor: Int32) -> UInt64? {
        try? SocketOption.cookie.value(of: descriptor, like: UInt64(0))
    }

    /// The inode of its network namespace; nil where the kernel does not tell.
    var networkNamespace: UInt64? {
        var inode: UInt64 = 0
        return sockalive_socket_namespace(descriptor, &inode) == 0 ? inode : nil
    }

    var isMultipath: Bool { Self.isMultipath(descriptor) }

    private static func isMultipath(_ descriptor: Int32) -> Bool {
        (try? SocketOption.protocolNumber.value(of: descriptor, like: Int32(0))) == Int32(SOCKALIVE_IPPROTO_MPTCP)
    }

    /// nil if this kernel or this socket does not have the option.
    private func option<Value: BitwiseCopyable>(_ option: SocketOption, like sample: Value) -> Value? {
        try? option.value(of: descriptor, like: sample)
    }

    /// The last descriptor of a socket waits in close(2) for its data to leave, where SO_LINGER is on and the owner has
    /// closed its own meanwhile. A task that exits does not wait.
    private static func close(_ descriptor: Int32, _ thread: WorkerThread) {
        thread.enter(next: .close)
        let linger = (try? SocketOption.linger.value(of: descriptor, like: linger())) ?? linger()
        if linger.l_onoff == 0 || sockalive_close_by_exit(descriptor) != 0 { Glibc.close(descriptor) }
    }

    deinit { Self.close(descriptor, thread) }

    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int {
        thread.enter(next: .options)
        return try SocketOption(level: level, name: name).read(from: descriptor, into: value)
    }

    mutating func exchange(_ options: inout [OptionExchange]) throws {
        thread.enter(next: .options)
        for index in options.indices { options[index].execute(on: descriptor) }
    }
}

extension BorrowedSocket {
    /// The socket's own data in the form of a table row; nil unless it is a TCP socket in one of the states of
    /// ``SocketRow/State``.
    func row() -> SocketRow? {
        guard let kind = option(.protocolNumber, like: Int32(0)), kind == Int32(IPPROTO_TCP) || isMultipath,
            let domain = option(.domain, like: Int32(0)), domain == AF_INET || domain == AF_INET6,
            let (state, idleSeconds) = stateAndIdle(),
            let local = endpoint(getsockname)
        else { return nil }
        let family: IPAddress.Family = domain == AF_INET ? .ipv4 : .ipv6
        var status = stat()
        guard let user = owner ?? (fstat(descriptor, &status) == 0 ? status.st_uid : nil) else { return nil }
        let nowhere = Endpoint(address: family == .ipv4 ? IPAddress(ipv4: 0) : IPAddress(ipv6: 0, 0), port: 0)
        guard let remote = state.hasPeer ? endpoint(getpeername) : nowhere else { return nil }
        // The scope in a sockaddr_in6 is the same number (include/net/ipv6.h, ipv6_iface_scope_id).
        let index = option(.interface, like: UInt32(0)) ?? 0
        let row = SocketRow(
            family: family, local: local, remote: remote, state: state, timer: .other, uid: user, inode: inode,
            idleSeconds: state.hasPeer ? idleSeconds : nil, cookie: cookie,
            interface: index == 0 ? nil : NetworkInterface(index: index))
        return InterfaceNames(socket: descriptor).naming(row)
    }

    private func stateAndIdle() -> (SocketRow.State, Double?)? {
        withUnsafeTemporaryAllocation(byteCount: TCPInfo.byteCount, alignment: 8) { bytes in
            guard let count = try? SocketOption.info.read(from: descriptor, into: bytes), count > 0 else { return nil }
            let info = UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, count)])
            return SocketRow.State(kernel: info[0]).map { ($0, TCPInfo(info)?.idleSeconds) }
        }
    }

    private func endpoint(
        _ ask: (Int32, UnsafeMutablePointer<sockaddr>?, UnsafeMutablePointer<socklen_t>?) -> Int32
    ) -> Endpoint? {
        (try? SocketAddress(of: descriptor, ask)).flatMap(Endpoint.init)
    }
}

extension Endpoint {
    /// nil for a family other than IPv4 and IPv6.
    init?(_ address: SocketAddress) {
        guard let endpoint = address.withBytes(Endpoint.init(socketAddress:)) else { return nil }
        self = endpoint
    }

    /// struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)).
    init?(socketAddress bytes: UnsafeRawBufferPointer) {
        guard let family: UInt16 = bytes.number(at: 0), let port: UInt16 = bytes.number(at: 2) else { return nil }
        let addressBytes = family == AF_INET ? 4..<8 : 8..<24
        guard family == AF_INET || family == AF_INET6, bytes.count >= addressBytes.upperBound,
            let address = IPAddress(bytes: bytes[addressBytes])
        else { return nil }
        self.init(address: address, port: UInt16(bigEndian: port))
    }
}

/// A way to reach a socket of another process.
package enum Method: String, BitwiseCopyable, Sendable {
    /// Borrows the descriptor by pidfd_getfd(2), Linux 5.6; the target is never stopped.
    case pidfd
    /// Calls setsockopt inside the target by ptrace(2). Works on every kernel, on x86-64.
    case ptrace

    var isForThisArchitecture: Bool {
        #if arch(x86_64)
            true
        #else
            self == .pidfd
        #endif
    }
}

/// The method that the caller asked for.
package enum MethodChoice: String, CaseIterable, Sendable {
    /// `auto` is the least intrusive method that works here.
    case auto, pidfd, ptrace

    /// The method to use. `auto` asks the kernel once: it borrows a descriptor of this process, which needs no rights.
    /// An old kernel returns ENOSYS; a container's seccomp profile that does not know the call returns EPERM.
    /// Where ptrace is impossible anyway, `auto` is pidfd, and the error tells what stands in its way.
    package func resolved() -> Method {
        switch self {
        case .pidfd: .pidfd
        case .ptrace: .ptrace
        case .auto: Self.isPidfdMissing && Method.ptrace.isForThisArchitecture ? .ptrace : .pidfd
        }
    }

    /// A want of descriptors or memory passes, and does not make the call a missing one.
    private static var isPidfdMissing: Bool {
        guard let error = borrowError() else { return false }
        return ![.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory].contains(error)
    }

    /// Why this process cannot borrow its own descriptor; nil if it can.
    static func borrowError() -> Errno? {
        let pidfd = sockalive_pidfd_open(getpid())
        guard pidfd >= 0 else { return Errno(rawValue: -pidfd) }
        defer { close(pidfd) }
        let copy = sockalive_pidfd_getfd(pidfd, pidfd)
        guard copy >= 0 else { return Errno(rawValue: -copy) }
        close(copy)
        return nil
    }

    static var opensPidfds: Bool {
        let pidfd = sockalive_pidfd_open(getpid())
        if pidfd >= 0 { close(pidfd) }
        return pidfd >= 0
    }
}

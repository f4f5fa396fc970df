import CSockalive
import Glibc
import SystemPackage

/// A NETLINK_SOCK_DIAG socket: a question goes out, datagrams come back.
struct SockDiagSocket: ~Copyable {
    private let descriptor: Int32
    private var sequence: UInt32 = 0
    /// A dump's datagrams are at most 32 KiB (net/netlink/af_netlink.c, netlink_dump).
    private var buffer = [UInt8](repeating: 0, count: 32 * 1024)

    /// The kernel answers at once; a sandbox that emulates it might never.
    private static let timeout = timeval(tv_sec: 5, tv_usec: 0)
    private static let maxAttempts = 3

    /// - Parameter namespace: a descriptor of `/proc/PID/ns/net`; nil is this process's own namespace.
    init(namespace: Int32? = nil) throws(Errno) {
        let descriptor = try Self.open(in: namespace)
        var timeout = Self.timeout
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    /// It stays in the namespace where it was made, whoever uses it (netlink(7)); so a thread enters that, and ends.
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

    /// Walks the whole table; again from the start where the kernel says that it changed underneath.
    ///
    /// - Parameter body: told of each socket, and after a repetition of some once more.
    mutating func dump(
        listeners: Bool, ports: Set<UInt16>?, _ body: (SockDiagMessage) -> Void
    ) throws(Errno) {
        for _ in 0..<Self.maxAttempts {
            sequence += 1
            let request = SockDiagRequest.dump(listeners: listeners, ports: ports, sequence: sequence)
            if try ask(request, isDump: true, body) { return }
        }
    }

    /// The connection between two ends, or nil where there is none.
    mutating func row(family: IPAddress.Family, local: Endpoint, remote: Endpoint) throws(Errno) -> SocketRow? {
        try connection(family, local, remote, \.row)
    }

    /// The tcp_info of the connection that a row describes; nil where it is gone, or another by now.
    mutating func tcpInfo(of row: SocketRow) throws(Errno) -> TCPInfo? {
        try connection(row.family, row.local, row.remote) { message in
            let isSame = message.inode == row.inode && (row.cookie ?? message.cookie) == message.cookie
            return isSame ? message.tcpInfo : nil
        }
    }

    private mutating func connection<Value>(
        _ family: IPAddress.Family, _ local: Endpoint, _ remote: Endpoint, _ read: (SockDiagMessage) -> Value?
    ) throws(Errno) -> Value? {
        sequence += 1
        let request = SockDiagRequest.exact(family: family, local: local, remote: remote, sequence: sequence)
        var value: Value?
        do {
            _ = try ask(request, isDump: false) { value = read($0) }
        } catch .noSuchFileOrDirectory {
            return nil
        }
        return value
    }

    /// - Returns: whether the answer is whole and consistent in itself.
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

    /// - Returns: the datagram's length; nil if it did not fit and is lost. The next one like it will.
    private mutating func receive() throws(Errno) -> Int? {
        while true {
            // With MSG_TRUNC the answer is the true length (recv(2)).
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

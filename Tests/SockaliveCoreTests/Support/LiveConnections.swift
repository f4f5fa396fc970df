import Glibc
import SystemPackage

/// Real connections with both ends in the test's own process, and their listeners.
final class LiveConnections {
    enum Kind: CaseIterable, Sendable {
        case ipv4, ipv6
        /// IPv4 addresses in IPv6 sockets.
        case mapped
        case multipath

        /// The kinds that every kernel has.
        static let allCases: [Kind] = [.ipv4, .ipv6, .mapped]
        fileprivate var isIPv4: Bool { self == .ipv4 || self == .multipath }
    }

    /// Whether MPTCP keepalive times can be set: Linux 6.10.
    static let hasMultipath: Bool = {
        guard let descriptor = try? socket(.multipath) else { return false }
        defer { close(descriptor) }
        return set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE, 600) == 0
    }()

    private(set) var ports: Set<UInt16> = []
    private(set) var listeners: [Int32] = []
    /// Client and server end of each connection.
    private(set) var pairs: [(client: Int32, server: Int32)] = []

    /// - Parameter keepaliveOn: one of so many connections has keepalive enabled at the client's end.
    init(each count: Int, kinds: [Kind] = Kind.allCases, keepaliveOn: Int = 3) throws {
        Self.raiseDescriptorLimit()
        for kind in kinds {
            let listener = try Self.listener(kind)
            listeners.append(listener)
            ports.insert(try Self.port(of: listener))
            for number in 1...count {
                let (client, _) = try connectAnother(kind)
                if number % keepaliveOn == 0 { Self.set(client, SOL_SOCKET, SO_KEEPALIVE, 1) }
            }
        }
    }

    /// One more connection to the latest listener.
    @discardableResult
    func connectAnother(_ kind: Kind) throws -> (client: Int32, server: Int32) {
        let listener = listeners[listeners.count - 1]
        let client = try Self.connect(kind, try Self.port(of: listener))
        let server = accept(listener, nil, nil)
        _ = fcntl(server, F_SETFD, FD_CLOEXEC)
        guard server >= 0 else { throw Errno(rawValue: errno) }
        pairs.append((client, server))
        return (client, server)
    }

    /// Closes the client's direction of a connection: the client is in FIN_WAIT2 then, and the server in CLOSE_WAIT.
    func halfClose(_ index: Int) {
        let client = pairs[index].client
        shutdown(client, Int32(SHUT_WR))
        var state: UInt8 = 0
        repeat {
            var length: socklen_t = 1
            getsockopt(client, Int32(IPPROTO_TCP), TCP_INFO, &state, &length)
        } while Int(state) != TCP_FIN_WAIT2
    }

    /// Closes the client's descriptor; the kernel keeps its half of the connection for so many seconds (tcp(7)).
    func orphan(_ index: Int, seconds: Int32) {
        Self.set(pairs[index].client, Int32(IPPROTO_TCP), TCP_LINGER2, seconds)
        close(pairs[index].client)
        pairs[index].client = -1
    }

    deinit {
        for pair in pairs {
            close(pair.client)
            close(pair.server)
        }
        for listener in listeners { close(listener) }
    }

    var descriptors: [Int32] { listeners + pairs.flatMap { [$0.client, $0.server] } }

    static func inode(of descriptor: Int32) -> UInt64 {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : 0
    }

    private static func listener(_ kind: Kind) throws -> Int32 {
        let listener = try socket(kind)
        if !kind.isIPv4 { set(listener, Int32(IPPROTO_IPV6), Int32(IPV6_V6ONLY), kind == .ipv6 ? 1 : 0) }
        guard withAddress(kind, 0, any: kind == .mapped, { bind(listener, $0, $1) }) == 0, listen(listener, 128) == 0
        else { throw Errno(rawValue: errno) }
        return listener
    }

    private static func connect(_ kind: Kind, _ port: UInt16) throws -> Int32 {
        let client = try socket(kind)
        guard withAddress(kind, port, { Glibc.connect(client, $0, $1) }) == 0 else { throw Errno(rawValue: errno) }
        return client
    }

    private static func socket(_ kind: Kind) throws -> Int32 {
        let family = kind.isIPv4 ? AF_INET : AF_INET6
        // IPPROTO_MPTCP
        let protocolNumber: Int32 = kind == .multipath ? 262 : 0
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = Glibc.socket(family, type, protocolNumber)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        return descriptor
    }

    @discardableResult
    private static func set(_ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Int32) -> Int32 {
        var value = value
        return setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    private static func withAddress(
        _ kind: Kind, _ port: UInt16, any: Bool = false, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        if kind.isIPv4 {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            inet_pton(AF_INET, "127.0.0.1", &address.sin_addr)
            return withUnsafeBytes(of: address) { body($0.assumingMemoryBound(to: sockaddr.self).baseAddress!, 16) }
        }
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        inet_pton(AF_INET6, kind == .ipv6 ? "::1" : any ? "::" : "::ffff:127.0.0.1", &address.sin6_addr)
        return withUnsafeBytes(of: address) { body($0.assumingMemoryBound(to: sockaddr.self).baseAddress!, 28) }
    }

    private static func port(of listener: Int32) throws -> UInt16 {
        var address = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let status = withUnsafeMutableBytes(of: &address) {
            getsockname(listener, $0.assumingMemoryBound(to: sockaddr.self).baseAddress!, &length)
        }
        guard status == 0 else { throw Errno(rawValue: errno) }
        return UInt16(bigEndian: address.sin6_port)
    }

    private static func raiseDescriptorLimit() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = min(limit.rlim_max, 8192)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}

import Glibc
import SystemPackage

/// A socket's address as the kernel expects it (struct sockaddr).
package struct SocketAddress {
    private var storage = sockaddr_storage()
    private var length = socklen_t(MemoryLayout<sockaddr_storage>.size)

    /// nil unless `text` is a path that fits, or `@` and an abstract name (unix(7)).
    package init?(unix text: String) {
        var bytes = Array(text.utf8)
        let isAbstract = bytes.first == UInt8(ascii: "@")
        var address = sockaddr_un()
        guard isAbstract || bytes.first == UInt8(ascii: "/"),
            bytes.count < MemoryLayout.size(ofValue: address.sun_path)
        else { return nil }
        if isAbstract { bytes[0] = 0 }
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        // An abstract name ends with the address's length, not at a zero byte.
        let end = bytes.count + (isAbstract ? 0 : 1)
        self.init(address, length: MemoryLayout<sockaddr_un>.offset(of: \.sun_path)! + end)
    }

    /// nil if the text is not an IPv4 address.
    package init?(ipv4 text: String, port: UInt16) {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, text, &address.sin_addr) == 1 else { return nil }
        self.init(address, length: MemoryLayout<sockaddr_in>.size)
    }

    private init(_ address: some BitwiseCopyable, length: Int) {
        withUnsafeBytes(of: address) { bytes in
            withUnsafeMutableBytes(of: &storage) { $0.copyMemory(from: bytes) }
        }
        self.length = socklen_t(length)
    }

    /// - Parameter ask: `getsockname` or `getpeername`.
    package init(
        of descriptor: Int32,
        _ ask: (Int32, UnsafeMutablePointer<sockaddr>?, UnsafeMutablePointer<socklen_t>?) -> Int32
    ) throws(Errno) {
        let status = withUnsafeMutableBytes(of: &storage) { bytes in
            ask(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length)
        }
        guard status == 0 else { throw Errno(rawValue: errno) }
    }

    /// - Parameter call: `bind` or `connect`.
    package func apply(
        to descriptor: Int32, _ call: (Int32, UnsafePointer<sockaddr>?, socklen_t) -> Int32
    ) throws(Errno) {
        let status = withUnsafeBytes(of: storage) { bytes in
            call(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), length)
        }
        guard status == 0 else { throw Errno(rawValue: errno) }
    }

    /// The used bytes, valid only within `body`.
    func withBytes<Value>(_ body: (UnsafeRawBufferPointer) -> Value) -> Value {
        withUnsafeBytes(of: storage) { bytes in
            body(UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, Int(length))]))
        }
    }
}

/// A socket option's level and name (socket(7), tcp(7)), with getsockopt(2) and setsockopt(2) on our own descriptors.
struct SocketOption {
    let level: Int32
    let name: Int32

    static let keepalive = SocketOption(level: SOL_SOCKET, name: SO_KEEPALIVE)
    static let idle = SocketOption(level: Int32(IPPROTO_TCP), name: TCP_KEEPIDLE)
    static let interval = SocketOption(level: Int32(IPPROTO_TCP), name: TCP_KEEPINTVL)
    static let count = SocketOption(level: Int32(IPPROTO_TCP), name: TCP_KEEPCNT)
    static let userTimeout = SocketOption(level: Int32(IPPROTO_TCP), name: TCP_USER_TIMEOUT)
    static let info = SocketOption(level: Int32(IPPROTO_TCP), name: TCP_INFO)
    static let cookie = SocketOption(level: SOL_SOCKET, name: SO_COOKIE)
    static let domain = SocketOption(level: SOL_SOCKET, name: SO_DOMAIN)
    static let protocolNumber = SocketOption(level: SOL_SOCKET, name: SO_PROTOCOL)
    static let linger = SocketOption(level: SOL_SOCKET, name: SO_LINGER)
    /// Linux 5.0.
    static let interface = SocketOption(level: SOL_SOCKET, name: SO_BINDTOIFINDEX)
    static let sendTimeout = SocketOption(level: SOL_SOCKET, name: SO_SNDTIMEO)
    static let receiveTimeout = SocketOption(level: SOL_SOCKET, name: SO_RCVTIMEO)

    /// - Returns: how many bytes the kernel wrote.
    func read(from descriptor: Int32, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        var length = socklen_t(bytes.count)
        guard getsockopt(descriptor, level, name, bytes.baseAddress, &length) == 0 else {
            throw Errno(rawValue: errno)
        }
        return Int(length)
    }

    func value<Value: BitwiseCopyable>(of descriptor: Int32, like sample: Value) throws(Errno) -> Value {
        var value = sample
        var length = socklen_t(MemoryLayout<Value>.size)
        guard getsockopt(descriptor, level, name, &value, &length) == 0 else { throw Errno(rawValue: errno) }
        return value
    }

    func set<Value: BitwiseCopyable>(_ value: Value, on descriptor: Int32) throws(Errno) {
        var value = value
        guard setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Value>.size)) == 0 else {
            throw Errno(rawValue: errno)
        }
    }
}

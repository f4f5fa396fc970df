import Glibc
import SystemPackage

/// A live TCP connection from this process to itself, over the loopback.
public final class TrialConnection {
    /// The end that connected.
    public let fd: Int32
    private let otherEnd: Int32

    /// - Throws: `Errno`; `addressNotAvailable` or `networkUnreachable` where the loopback is down.
    public init() throws(Errno) {
        let listener = try Self.socket()
        defer { close(listener) }
        // Port 0: whichever is free.
        var address = try Self.named(listener, sockaddr_in(loopbackPort: 0))
        let client = try Self.socket()
        let connected = withSocketAddress(&address) { connect(client, $0, $1) }
        fd = client
        otherEnd = connected == 0 ? accept(listener, nil, nil) : -1
        guard otherEnd >= 0 else {
            let error = Errno(rawValue: errno)
            close(client)
            throw error
        }
    }

    deinit {
        close(fd)
        close(otherEnd)
    }

    /// What getsockopt(2) answers here; nil if it does not.
    public var keepalive: KeepaliveSettings? {
        guard let enabled = value(.keepalive), let idle = value(.idle), let interval = value(.interval),
            let count = value(.count), let userTimeout = value(.userTimeout)
        else { return nil }
        return KeepaliveSettings(
            enabled: enabled != 0, idle: idle, interval: interval, count: count, userTimeout: userTimeout)
    }

    private func value(_ option: Option) -> Int32? {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(fd, option.level, option.name, &value, &length) == 0 ? value : nil
    }

    private static func socket() throws(Errno) -> Int32 {
        let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        return descriptor
    }

    /// Makes a listener, and says where it listens.
    private static func named(_ listener: Int32, _ wanted: sockaddr_in) throws(Errno) -> sockaddr_in {
        var address = wanted
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        guard withSocketAddress(&address, { bind(listener, $0, $1) }) == 0, listen(listener, 1) == 0,
            withSocketAddress(&address, { name, _ in getsockname(listener, name, &size) }) == 0
        else { throw Errno(rawValue: errno) }
        return address
    }
}

extension sockaddr_in {
    fileprivate init(loopbackPort port: UInt16) {
        self.init()
        sin_family = sa_family_t(AF_INET)
        sin_port = port.bigEndian
        sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
    }
}

private func withSocketAddress(
    _ address: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> Int32
) -> Int32 {
    withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
}

import Glibc
import SystemPackage

/// A live TCP connection from this process to itself, over the loopback interface.
package final class TrialConnection {
    /// The end that connected.
    package let fd: Int32
    private let otherEnd: Int32

    /// - Throws: `Errno`; `addressNotAvailable` or `networkUnreachable` if the loopback interface is down.
    package init() throws(Errno) {
        let listener = try Self.socket()
        defer { close(listener) }
        // Port 0: the kernel chooses a free port.
        guard let anyPort = SocketAddress(ipv4: "127.0.0.1", port: 0) else { throw .invalidArgument }
        let address = try Self.listen(listener, at: anyPort)
        let client = try Self.socket()
        do throws(Errno) {
            try address.apply(to: client, connect)
            let accepted = accept(listener, nil, nil)
            guard accepted >= 0 else { throw Errno(rawValue: errno) }
            (fd, otherEnd) = (client, accepted)
        } catch {
            close(client)
            throw error
        }
    }

    deinit {
        close(fd)
        close(otherEnd)
    }

    /// The settings that getsockopt(2) returns here; nil if it fails.
    package var keepalive: KeepaliveSettings? {
        guard let enabled = value(.keepalive), let idle = value(.idle), let interval = value(.interval),
            let count = value(.count), let userTimeout = value(.userTimeout)
        else { return nil }
        return KeepaliveSettings(
            enabled: enabled != 0, idle: idle, interval: interval, count: count, userTimeout: userTimeout)
    }

    private func value(_ option: SocketOption) -> Int32? {
        try? option.value(of: fd, like: 0)
    }

    private static func socket() throws(Errno) -> Int32 {
        let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        return descriptor
    }

    /// Makes a listener.
    ///
    /// - Returns: its address.
    private static func listen(_ listener: Int32, at address: SocketAddress) throws(Errno) -> SocketAddress {
        try address.apply(to: listener, bind)
        guard Glibc.listen(listener, 1) == 0 else { throw Errno(rawValue: errno) }
        return try SocketAddress(of: listener, getsockname)
    }
}

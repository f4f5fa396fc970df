import Glibc
import SystemPackage

/// A socket whose options can be read and set: a borrowed descriptor, or a remote call inside
/// the process that owns it. The sequence over it is the same either way.
protocol SocketOptions: ~Copyable {
    /// The corresponding C function is getsockopt(2). Answers the number of bytes written.
    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int
    /// The corresponding C function is setsockopt(2).
    mutating func set(level: Int32, name: Int32, to value: Int32) throws
}

/// The option names and their levels (socket(7), tcp(7)); the numbers are the Linux ones of every
/// architecture that Swift runs on.
private enum Option {
    static let keepalive = (level: SOL_SOCKET, name: SO_KEEPALIVE)
    static let idle = (level: Int32(IPPROTO_TCP), name: TCP_KEEPIDLE)
    static let interval = (level: Int32(IPPROTO_TCP), name: TCP_KEEPINTVL)
    static let count = (level: Int32(IPPROTO_TCP), name: TCP_KEEPCNT)
    static let userTimeout = (level: Int32(IPPROTO_TCP), name: TCP_USER_TIMEOUT)
    static let info = (level: Int32(IPPROTO_TCP), name: TCP_INFO)
}

extension SocketOptions where Self: ~Copyable {
    mutating func keepalive() throws -> KeepaliveSettings {
        KeepaliveSettings(
            enabled: try int(Option.keepalive) != 0,
            idle: try int(Option.idle),
            interval: try int(Option.interval),
            count: try int(Option.count),
            userTimeout: try userTimeout())
    }

    /// An MPTCP socket knows the other options (net/mptcp/sockopt.c, since Linux 6.10), but has no TCP_USER_TIMEOUT.
    private mutating func userTimeout() throws -> Int32 {
        do {
            return try int(Option.userTimeout)
        } catch Errno.notSupported {
            return 0
        }
    }

    mutating func apply(_ step: KeepaliveStep) throws {
        switch step {
        case .enable(let on): try set(Option.keepalive, to: on ? 1 : 0)
        case .interval(let seconds): try set(Option.interval, to: seconds)
        case .count(let probes): try set(Option.count, to: probes)
        case .idle(let seconds): try set(Option.idle, to: seconds)
        case .userTimeout(let milliseconds): try set(Option.userTimeout, to: milliseconds)
        }
    }

    mutating func pulse() throws -> Pulse {
        try withUnsafeTemporaryAllocation(byteCount: Pulse.byteCount, alignment: 8) { bytes in
            let count = try get(level: Option.info.level, name: Option.info.name, into: bytes)
            guard let pulse = Pulse(UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, count)])) else {
                throw Errno.invalidArgument
            }
            return pulse
        }
    }

    private mutating func int(_ option: (level: Int32, name: Int32)) throws -> Int32 {
        var value: Int32 = 0
        let count = try withUnsafeMutableBytes(of: &value) {
            try get(level: option.level, name: option.name, into: $0)
        }
        guard count == MemoryLayout<Int32>.size else { throw Errno.invalidArgument }
        return value
    }

    private mutating func set(_ option: (level: Int32, name: Int32), to value: Int32) throws {
        try set(level: option.level, name: option.name, to: value)
    }
}

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
            userTimeout: try int(Option.userTimeout))
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

    /// What the kernel's keepalive timer counts: the lesser of the time since the last data and since
    /// the last ACK received (include/net/tcp.h, keepalive_time_elapsed). Seconds.
    mutating func idleSeconds() throws -> Double {
        // struct tcp_info (linux/tcp.h): tcpi_last_data_recv at byte 52, tcpi_last_ack_recv at 56, ms.
        try withUnsafeTemporaryAllocation(byteCount: 104, alignment: 8) { bytes in
            let count = try get(level: Option.info.level, name: Option.info.name, into: bytes)
            guard count >= 60 else { throw Errno.invalidArgument }
            let lastData = bytes.load(fromByteOffset: 52, as: UInt32.self)
            let lastAck = bytes.load(fromByteOffset: 56, as: UInt32.self)
            return Double(min(lastData, lastAck)) / 1000
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

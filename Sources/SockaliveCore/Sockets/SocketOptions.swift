import CSockalive
import Glibc
import SystemPackage

/// One integer option of a socket, to read, or to set and then read.
struct OptionExchange: Equatable {
    let level: Int32
    let name: Int32
    /// nil: the option is only read.
    let newValue: Int32?
    /// The value that was read.
    var value: Int32 = 0
    /// Why it could not be set or read.
    var error: Errno?

    init(_ option: SocketOption, to newValue: Int32? = nil) {
        level = option.level
        name = option.name
        self.newValue = newValue
    }

    /// Those of ``KeepaliveSettings``. Not one array for all threads, whose references they would count.
    fileprivate static var reading: [OptionExchange] {
        [
            OptionExchange(.keepalive), OptionExchange(.idle), OptionExchange(.interval), OptionExchange(.count),
            OptionExchange(.userTimeout),
        ]
    }

    /// Executes on a descriptor of this process.
    mutating func execute(on descriptor: Int32) {
        let option = SocketOption(level: level, name: name)
        error = nil
        do throws(Errno) {
            if let newValue { try option.set(newValue, on: descriptor) }
            value = try option.value(of: descriptor, like: value)
        } catch {
            self.error = error
        }
    }
}

/// A socket whose options can be read and set: a borrowed descriptor, or a descriptor inside the process that owns it.
/// The sequence of calls is the same for both.
protocol SocketOptions: ~Copyable {
    /// The corresponding C function is getsockopt(2). Returns the number of bytes written.
    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int

    /// setsockopt(2) and getsockopt(2) for up to five integer options, in order. One function does them all, because a
    /// held target then stops once for all of them.
    mutating func exchange(_ options: inout [OptionExchange]) throws
}

extension SocketOptions where Self: ~Copyable {
    mutating func keepalive() throws -> KeepaliveSettings {
        var options = OptionExchange.reading
        try exchange(&options)
        // An MPTCP socket has the other options since Linux 6.10 (net/mptcp/sockopt.c), but not TCP_USER_TIMEOUT.
        if options[4].error == .notSupported {
            options[4].error = nil
            options[4].value = 0
        }
        try options.throwFirstError()
        return KeepaliveSettings(
            enabled: options[0].value != 0, idle: options[1].value, interval: options[2].value,
            count: options[3].value, userTimeout: options[4].value)
    }

    /// Executes the steps in order, and returns the settings as read back.
    mutating func apply(_ steps: [KeepaliveStep], to before: KeepaliveSettings) throws -> KeepaliveSettings {
        var options = steps.map(\.exchange)
        try exchange(&options)
        try options.throwFirstError()
        var after = before
        for (step, option) in zip(steps, options) { after.apply(step.reading(option.value)) }
        return after
    }

    /// Whether the options are an MPTCP socket's, and its subflow has others.
    ///
    /// Probes are a subflow's. Before Linux 6.10 an MPTCP socket handed SO_KEEPALIVE to its subflows and always read
    /// back 0 (net/mptcp/sockopt.c). Since then a BPF program may still set an option of a subflow alone
    /// (BPF_PROG_TYPE_SOCK_OPS). The timer in the socket table is the subflow's.
    ///
    /// A plain socket has one set of options. If its timer differs, the options have changed since it was read.
    mutating func differFromSubflow(_ settings: KeepaliveSettings, timer: Bool?) throws -> Bool {
        guard let timer, timer != settings.enabled else { return false }
        var number = Int32(0)
        _ = try withUnsafeMutableBytes(of: &number) {
            try get(level: SocketOption.protocolNumber.level, name: SocketOption.protocolNumber.name, into: $0)
        }
        return number == Int32(SOCKALIVE_IPPROTO_MPTCP)
    }

    mutating func tcpInfo() throws -> TCPInfo {
        try withUnsafeTemporaryAllocation(byteCount: TCPInfo.byteCount, alignment: 8) { bytes in
            let count = try get(level: SocketOption.info.level, name: SocketOption.info.name, into: bytes)
            guard let tcpInfo = TCPInfo(UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, count)])) else {
                throw Errno.invalidArgument
            }
            return tcpInfo
        }
    }
}

extension KeepaliveStep {
    fileprivate var exchange: OptionExchange {
        switch self {
        case .enable(let on): OptionExchange(.keepalive, to: on ? 1 : 0)
        case .interval(let seconds): OptionExchange(.interval, to: seconds)
        case .count(let probes): OptionExchange(.count, to: probes)
        case .idle(let seconds): OptionExchange(.idle, to: seconds)
        case .userTimeout(let milliseconds): OptionExchange(.userTimeout, to: milliseconds)
        }
    }

    /// The same step with the value that was read afterwards.
    fileprivate func reading(_ value: Int32) -> KeepaliveStep {
        switch self {
        case .enable: .enable(value != 0)
        case .interval: .interval(value)
        case .count: .count(value)
        case .idle: .idle(value)
        case .userTimeout: .userTimeout(value)
        }
    }
}

extension [OptionExchange] {
    fileprivate func throwFirstError() throws {
        for option in self { if let error = option.error { throw error } }
    }
}

/// The state of one connection: the fields of struct tcp_info (include/uapi/linux/tcp.h) that are needed here.
struct TCPInfo: Equatable, Sendable {
    /// The size up to tcpi_notsent_bytes, which came in Linux 4.6. The first 104 bytes are ten years older.
    static let byteCount = 148

    let state: UInt8
    /// Keepalive probes and zero-window probes since the last ACK.
    let probesOutstanding: Int
    /// How often the time between zero-window probes, or between retransmissions, was doubled.
    let backoff: Int
    /// The time that an answer may take, as the kernel has measured it; retransmissions have doubled it already.
    let millisecondsOfRTO: Double
    /// Segments that the peer has not acknowledged yet.
    let segmentsInFlight: Int
    /// The last data that left, a retransmission too.
    let millisecondsSinceDataSent: Int
    /// Meaningless before the first data.
    let millisecondsSinceData: Int
    let millisecondsSinceAck: Int
    /// All segments ever sent, probes included; nil if the kernel is too old to count them.
    let segmentsSent: UInt32?
    /// Data that the application has written and that has not left yet; nil where the kernel is too old to tell.
    let bytesNotSent: Int?

    /// nil if the kernel returned less than the oldest kernel does.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= 60 else { return nil }
        func number(_ offset: Int) -> Int { Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
        state = bytes[0]
        probesOutstanding = Int(bytes[3])
        backoff = Int(bytes[4])
        millisecondsOfRTO = Double(number(8)) / 1000
        segmentsInFlight = number(24)
        millisecondsSinceDataSent = number(44)
        millisecondsSinceData = number(52)
        millisecondsSinceAck = number(56)
        segmentsSent = bytes.count >= 140 ? bytes.loadUnaligned(fromByteOffset: 136, as: UInt32.self) : nil
        bytesNotSent = bytes.count >= 148 ? number(144) : nil
    }

    init(
        state: UInt8 = UInt8(TCP_ESTABLISHED), probesOutstanding: Int = 0, segmentsInFlight: Int = 0,
        millisecondsSinceData: Int, millisecondsSinceAck: Int, segmentsSent: UInt32? = nil, bytesNotSent: Int? = nil,
        backoff: Int = 0, millisecondsOfRTO: Double = 0, millisecondsSinceDataSent: Int = 0
    ) {
        self.state = state
        self.probesOutstanding = probesOutstanding
        self.segmentsInFlight = segmentsInFlight
        self.millisecondsSinceData = millisecondsSinceData
        self.millisecondsSinceAck = millisecondsSinceAck
        self.segmentsSent = segmentsSent
        self.bytesNotSent = bytesNotSent
        self.backoff = backoff
        self.millisecondsOfRTO = millisecondsOfRTO
        self.millisecondsSinceDataSent = millisecondsSinceDataSent
    }

    /// The connection was reset or given up.
    var isClosed: Bool { state == TCP_CLOSE }
    var isListening: Bool { state == TCP_LISTEN }

    /// The time that the kernel's keepalive timer counts: the lesser of the times since the last data and since the
    /// last ACK received (include/net/tcp.h, keepalive_time_elapsed).
    var idleMilliseconds: Int { min(millisecondsSinceData, millisecondsSinceAck) }
    var idleSeconds: Double { Double(idleMilliseconds) / 1000 }
}

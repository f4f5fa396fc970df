import Glibc

/// One row of a TCP socket table.
package struct SocketRow: Equatable, BitwiseCopyable, Sendable {
    package enum State: String, BitwiseCopyable, Sendable {
        case established
        /// Half closed: the owner has closed its direction (shutdown(2)). The peer may still send.
        case finWait2 = "fin_wait2"
        /// Half closed by the peer. The owner may still send.
        case closeWait = "close_wait"
        case listen

        /// - Parameter number: as in include/net/tcp_states.h.
        init?(kernel number: UInt8) {
            switch Int(number) {
            case TCP_ESTABLISHED: self = .established
            case TCP_FIN_WAIT2: self = .finWait2
            case TCP_CLOSE_WAIT: self = .closeWait
            case TCP_LISTEN: self = .listen
            default: return nil
            }
        }

        var kernelNumber: UInt32 {
            switch self {
            case .established: UInt32(TCP_ESTABLISHED)
            case .finWait2: UInt32(TCP_FIN_WAIT2)
            case .closeWait: UInt32(TCP_CLOSE_WAIT)
            case .listen: UInt32(TCP_LISTEN)
            }
        }

        /// One direction is closed. Keepalive works as on an established connection (net/ipv4/tcp_timer.c,
        /// tcp_keepalive_timer).
        package var isHalfClosed: Bool { self == .finWait2 || self == .closeWait }
        /// It is a connection, not a listener.
        package var hasPeer: Bool { self != .listen }
    }

    /// The timer that runs on a socket (net/ipv4/tcp_ipv4.c, get_tcp4_sock).
    package enum Timer: Equatable, BitwiseCopyable, Sendable {
        /// No timer: on a connection keepalive is off.
        case none
        /// Keepalive is on; the next probe is due in this many seconds.
        case keepalive(seconds: Double)
        /// Data waits for its acknowledgement; it is sent again in this many seconds. Hides an armed keepalive timer.
        case retransmission(seconds: Double)
        /// Data waits for the peer's window; the next zero-window probe is due in this many seconds. Hides it, too.
        case windowProbe(seconds: Double)
        /// Another one, or not known: hides an armed keepalive timer.
        case other

        /// The kinds as the kernel numbers them.
        init(kind: UInt8, seconds: Double) {
            switch kind {
            case 0: self = .none
            case 1: self = .retransmission(seconds: seconds)
            case 2: self = .keepalive(seconds: seconds)
            case 4: self = .windowProbe(seconds: seconds)
            default: self = .other
            }
        }

        /// When the kernel sends the next packet for data that waits. No keepalive probe leaves before that data is
        /// acknowledged. nil if no data is known to wait.
        package var secondsToWaitingData: Double? {
            switch self {
            case .retransmission(let seconds), .windowProbe(let seconds): seconds
            case .none, .keepalive, .other: nil
            }
        }
    }

    package let family: IPAddress.Family
    package let local: Endpoint
    package let remote: Endpoint
    package let state: State
    package let timer: Timer
    package let uid: UInt32
    package let inode: UInt64
    /// The time that the kernel's keepalive timer counts: the lesser of the times since the last data and since the
    /// last ACK received (include/net/tcp.h, keepalive_time_elapsed). nil if the source does not tell.
    package var idleSeconds: Double?
    /// The kernel's 64-bit number of the socket, which is never reused (SO_COOKIE, Linux 4.12; idiag_cookie). An inode
    /// number has 32 bits and is reused. nil if the source does not tell.
    package var cookie: UInt64?
    /// The one that the socket is bound to, as every socket with a link-local peer is (net/ipv6/tcp_ipv6.c,
    /// tcp_v6_connect). nil where it is bound to none, or the source does not say.
    package var interface: NetworkInterface?

    /// Without which an address means nothing; nil for an address of the whole host, and where it is not known.
    package func scope(of end: Endpoint) -> NetworkInterface? { end.address.isLinkLocal ? interface : nil }

    package var localDescription: String { local.description(scope: scope(of: local)) }
    package var remoteDescription: String { remote.description(scope: scope(of: remote)) }
}

extension SocketRow {
    /// Whether keepalive is on, as far as the timer tells.
    var keepaliveByTimer: Bool? {
        switch timer {
        case .keepalive: true
        case .none: state.hasPeer ? false : nil
        case .retransmission, .windowProbe, .other: nil
        }
    }
}

/// Parses `/proc/net/tcp` and `/proc/net/tcp6` (proc_pid_net(5); Documentation/networking/proc_net_tcp.rst).
///
/// The file is big, and most rows are not wanted. A row becomes a value only if its state and ports match. A row that
/// is cut off or malformed is dropped.
struct SocketTableReader {
    let family: IPAddress.Family
    /// Whether a row is wanted, by state, local port and remote port.
    let accepts: (SocketRow.State, UInt16, UInt16) -> Bool

    func rows(in text: UnsafeBufferPointer<UInt8>) -> [SocketRow] {
        var rows: [SocketRow] = []
        var start = 0
        // The kernel ends every row with a line end. Text after the last line end is cut off.
        while start < text.count, let end = text[start...].firstIndex(of: UInt8(ascii: "\n")) {
            if let row = row(in: text[start..<end]) { rows.append(row) }
            start = end + 1
        }
        return rows
    }

    /// `sl: local remote st tx:rx tr:when retrnsmt uid timeout inode …`
    private func row(in line: Slice<UnsafeBufferPointer<UInt8>>) -> SocketRow? {
        var fields = Fields(line)
        guard fields.next()?.last == UInt8(ascii: ":"),
            let local = fields.next(), let remote = fields.next(),
            let state = fields.next()?.hexadecimal(UInt8.self).flatMap(SocketRow.State.init(kernel:)),
            let localPort = Self.port(local), let remotePort = Self.port(remote),
            accepts(state, localPort, remotePort),
            let localAddress = address(local), let remoteAddress = address(remote),
            fields.next() != nil,
            let timer = fields.next().flatMap(Self.timer),
            fields.next() != nil,
            let uid = fields.next()?.decimal(UInt32.self),
            fields.next() != nil,
            let inode = fields.next()?.decimal(UInt64.self),
            // The reference count follows the inode. If it is present, the inode is complete.
            fields.next() != nil
        else { return nil }
        return SocketRow(
            family: family,
            local: Endpoint(address: localAddress, port: localPort),
            remote: Endpoint(address: remoteAddress, port: remotePort),
            state: state, timer: timer, uid: uid, inode: inode)
    }

    private static func port(_ field: Slice<UnsafeBufferPointer<UInt8>>) -> UInt16? {
        guard let colon = field.lastIndex(of: UInt8(ascii: ":")), field.endIndex - colon == 5 else { return nil }
        return field[(colon + 1)...].hexadecimal()
    }

    /// 32-bit words, each printed as a number in this machine's byte order.
    private func address(_ field: Slice<UnsafeBufferPointer<UInt8>>) -> IPAddress? {
        let words = family == .ipv4 ? 1 : 4
        guard field.count == words * 8 + 5 else { return nil }
        var bytes: [UInt8] = []
        for index in 0..<words {
            let start = field.startIndex + index * 8
            guard let word = field[start..<start + 8].hexadecimal(UInt32.self) else { return nil }
            withUnsafeBytes(of: word) { bytes.append(contentsOf: $0) }
        }
        return IPAddress(bytes: bytes)
    }

    /// `tr:when`: the kind of timer, and the clock ticks (USER_HZ, always 100) until it fires.
    private static func timer(_ field: Slice<UnsafeBufferPointer<UInt8>>) -> SocketRow.Timer? {
        guard let colon = field.firstIndex(of: UInt8(ascii: ":")),
            let kind = field[..<colon].hexadecimal(UInt8.self),
            let ticks = field[(colon + 1)...].hexadecimal(UInt64.self)
        else { return nil }
        return SocketRow.Timer(kind: kind, seconds: Double(ticks) / 100)
    }
}

/// A process and the number under which it holds a socket.
package struct SocketHolder: Hashable, Comparable, BitwiseCopyable, Sendable {
    package let pid: Int32
    package let fd: Int32

    package static func < (left: SocketHolder, right: SocketHolder) -> Bool {
        (left.pid, left.fd) < (right.pid, right.fd)
    }
}

/// The identity that a descriptor's socket must have.
struct SocketIdentity: Equatable {
    let inode: UInt64
    let cookie: UInt64?
    let sharesInode: Bool

    init(inode: UInt64, cookie: UInt64? = nil, sharesInode: Bool = false) {
        self.inode = inode
        self.cookie = cookie
        self.sharesInode = sharesInode
    }
}

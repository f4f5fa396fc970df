import CSockalive
import Glibc
import SystemPackage

/// Parses replies of NETLINK_SOCK_DIAG (include/uapi/linux/inet_diag.h). Pure: a datagram in, rows out.
struct SockDiagReply {
    static let infoAttribute = UInt16(INET_DIAG_INFO)

    enum Progress: Equatable {
        /// More datagrams follow.
        case more
        /// The end of a dump. `isConsistent` is false if the table changed meanwhile, so rows may be missing.
        case done(isConsistent: Bool)
        case failed(Errno)
    }

    /// Replies to other requests are ignored.
    let sequence: UInt32
    private var isConsistent = true

    init(sequence: UInt32) {
        self.sequence = sequence
    }

    /// - Parameter body: gets each socket's payload. Its bytes are valid only within the call.
    mutating func read(_ datagram: UnsafeRawBufferPointer, _ body: (SockDiagMessage) -> Void) -> Progress {
        var messages = NetlinkMessages(datagram)
        while let message = messages.next() {
            guard message.sequence == sequence else { continue }
            if message.flags & UInt16(NLM_F_DUMP_INTR) != 0 { isConsistent = false }
            switch Int32(message.type) {
            case NLMSG_ERROR: return .failed(Self.error(in: message.payload))
            case NLMSG_DONE: return done(message.payload)
            case TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY: if let socket = SockDiagMessage(message.payload) { body(socket) }
            default: continue
            }
        }
        return messages.isCut ? .failed(.ioError) : .more
    }

    /// NLMSG_DONE carries the errno of a dump that was aborted.
    private func done(_ payload: UnsafeRawBufferPointer) -> Progress {
        let status: Int32 = payload.number(at: 0) ?? 0
        return status < 0 ? .failed(Self.error(in: payload)) : .done(isConsistent: isConsistent)
    }

    private static func error(in payload: UnsafeRawBufferPointer) -> Errno {
        guard let status: Int32 = payload.number(at: 0), (-4095..<0).contains(status) else { return .ioError }
        return Errno(rawValue: -status)
    }
}

/// struct inet_diag_msg and the attributes after it. Fields are parsed on demand: most sockets of a busy host are
/// rejected by state, port or inode.
struct SockDiagMessage {
    private static let fixedSize = 72

    private let bytes: UnsafeRawBufferPointer

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.fixedSize else { return nil }
        self.bytes = bytes
    }

    var inode: UInt64 { UInt64(field(68, UInt32.self)) }
    /// Two 32-bit halves, the lower one first (net/core/sock_diag.c, sock_diag_save_cookie).
    var cookie: UInt64 { UInt64(field(48, UInt32.self)) << 32 | UInt64(field(44, UInt32.self)) }
    var localPort: UInt16 { field(4, UInt16.self).byteSwappedFromNetwork }
    var remotePort: UInt16 { field(6, UInt16.self).byteSwappedFromNetwork }

    var state: SocketRow.State? { SocketRow.State(kernel: bytes[1]) }

    /// The whole row; nil for another family than IPv4 and IPv6, or for another state.
    var row: SocketRow? {
        guard let state, let family = family,
            let local = address(at: 8, family), let remote = address(at: 24, family)
        else { return nil }
        return SocketRow(
            family: family,
            local: Endpoint(address: local, port: localPort),
            remote: Endpoint(address: remote, port: remotePort),
            state: state, timer: timer, uid: field(64, UInt32.self), inode: inode,
            idleSeconds: state.hasPeer ? idleSeconds : nil, cookie: cookie, interface: interface)
    }

    /// Without its name, for which somebody in the same network namespace has to be asked.
    private var interface: NetworkInterface? {
        let index = field(40, UInt32.self)
        return index == 0 ? nil : NetworkInterface(index: index)
    }

    private var family: IPAddress.Family? {
        switch Int32(bytes[0]) {
        case AF_INET: .ipv4
        case AF_INET6: .ipv6
        default: nil
        }
    }

    private func address(at offset: Int, _ family: IPAddress.Family) -> IPAddress? {
        switch family {
        case .ipv4: IPAddress(ipv4: field(offset, UInt32.self).byteSwappedFromNetwork)
        case .ipv6:
            IPAddress(
                ipv6: field(offset, UInt64.self).byteSwappedFromNetwork,
                field(offset + 8, UInt64.self).byteSwappedFromNetwork)
        }
    }

    /// The kind of timer, and the milliseconds until it fires (net/ipv4/inet_diag.c, inet_sk_diag_fill).
    private var timer: SocketRow.Timer {
        SocketRow.Timer(kind: bytes[2], seconds: Double(field(52, UInt32.self)) / 1000)
    }

    private var idleSeconds: Double? { tcpInfo?.idleSeconds }

    /// The tcp_info, which the kernel sends if the request has INET_DIAG_INFO.
    var tcpInfo: TCPInfo? {
        let attributes = NetlinkAttributes(UnsafeRawBufferPointer(rebasing: bytes[Self.fixedSize...]))
        return attributes.first { $0.type == SockDiagReply.infoAttribute }.flatMap { TCPInfo($0.value) }
    }

    /// A field of the fixed part, whose length init has checked.
    private func field<Number: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: Number.Type) -> Number {
        bytes.number(at: offset) ?? 0
    }
}

extension FixedWidthInteger {
    fileprivate var byteSwappedFromNetwork: Self { Self(bigEndian: self) }
}

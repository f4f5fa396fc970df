import CSockalive
import Glibc

/// Requests to NETLINK_SOCK_DIAG, as bytes (sock_diag(7), include/uapi/linux/inet_diag.h). Pure.
enum SockDiagRequest {
    private static let requestFlag = UInt16(NLM_F_REQUEST)
    /// NLM_F_DUMP.
    private static let dumpFlag = UInt16(NLM_F_ROOT | NLM_F_MATCH)
    /// Requests the attribute INET_DIAG_INFO, struct tcp_info.
    private static let infoExtension: UInt8 = 1 << (SockDiagReply.infoAttribute - 1)

    /// All sockets in these states, of both families. With `ports`, the kernel drops the others.
    ///
    /// TCPDIAG_GETSOCK is the older of the two request types. It has no family, so one walk over the connection hash
    /// (262,144 buckets, 4 ms) returns both. SOCK_DIAG_BY_FAMILY needs two walks.
    static func dump(states: Set<SocketRow.State>, ports: Set<UInt16>?, sequence: UInt32) -> [UInt8] {
        var body: [UInt8] = [0, 0, 0, infoExtension]
        body += [UInt8](repeating: 0, count: 48)
        body.append(number: states.reduce(UInt32(0)) { $0 | 1 << $1.kernelNumber })
        body.append(number: UInt32(0))
        if let program = ports.flatMap(PortFilter.program) {
            // struct rtattr.
            body.append(number: UInt16(4 + program.count))
            body.append(number: UInt16(INET_DIAG_REQ_BYTECODE))
            body += program
        }
        return message(type: UInt16(TCPDIAG_GETSOCK), flags: requestFlag | dumpFlag, sequence: sequence, body)
    }

    /// The one connection between these two endpoints (SOCK_DIAG_BY_FAMILY without the dump flag): a hash look-up.
    ///
    /// - Parameter interface: the one that the socket is bound to. Without it the kernel does not find the socket
    ///   (inet_sk_bound_dev_eq).
    static func exact(
        family: IPAddress.Family, local: Endpoint, remote: Endpoint, interface: UInt32 = 0, sequence: UInt32
    ) -> [UInt8] {
        var body = [UInt8(family == .ipv4 ? AF_INET : AF_INET6), UInt8(IPPROTO_TCP), infoExtension, 0]
        body.append(number: UInt32.max)
        body.append(number: local.port.bigEndian)
        body.append(number: remote.port.bigEndian)
        for address in [local.address, remote.address] {
            body += address.bytes
            body += [UInt8](repeating: 0, count: 16 - address.bytes.count)
        }
        body.append(number: interface)
        // INET_DIAG_NOCOOKIE matches any socket. The caller compares the inode afterwards.
        body += [UInt8](repeating: 0xff, count: 8)
        return message(type: UInt16(SOCK_DIAG_BY_FAMILY), flags: requestFlag, sequence: sequence, body)
    }

    private static func message(type: UInt16, flags: UInt16, sequence: UInt32, _ body: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(number: UInt32(NetlinkMessages.headerSize + body.count))
        bytes.append(number: type)
        bytes.append(number: flags)
        bytes.append(number: sequence)
        bytes.append(number: UInt32(0))
        return bytes + body
    }
}

/// The port filter as a program for the kernel (net/ipv4/inet_diag.c, inet_diag_bc_run and _audit).
///
/// An operation is `code, yes, no`. `yes` and `no` are the bytes to advance if the test is true or false. A program
/// that ends exactly at its end accepts the socket. A jump 4 bytes beyond the end rejects it. Equality is written as
/// ≥ and ≤, which every kernel has; INET_DIAG_BC_S_EQ is newer.
enum PortFilter {
    private enum Code {
        case jump, localAtLeast, localAtMost, remoteAtLeast, remoteAtMost

        var number: UInt8 {
            switch self {
            case .jump: UInt8(INET_DIAG_BC_JMP)
            case .localAtLeast: UInt8(INET_DIAG_BC_S_GE)
            case .localAtMost: UInt8(INET_DIAG_BC_S_LE)
            case .remoteAtLeast: UInt8(INET_DIAG_BC_D_GE)
            case .remoteAtMost: UInt8(INET_DIAG_BC_D_LE)
            }
        }
    }

    /// With more ports the request has no filter: `no` has 16 bits.
    private static let maxPorts = 256
    private static let testSize = 20

    static func program(_ ports: Set<UInt16>) -> [UInt8]? {
        guard !ports.isEmpty, ports.count <= maxPorts else { return nil }
        let tests = ports.sorted().flatMap { port in
            [(Code.localAtLeast, Code.localAtMost, port), (.remoteAtLeast, .remoteAtMost, port)]
        }
        var program: [UInt8] = []
        for (index, test) in tests.enumerated() {
            let testsBehind = tests.count - 1 - index
            // If the port is too small or too large, continue with the next test.
            append(test.0, no: testSize, port: test.2, to: &program)
            append(test.1, no: testSize - 8, port: test.2, to: &program)
            // If it is equal, jump to the end, past the rejection.
            append(.jump, yes: 4, no: 4 + testsBehind * testSize + 4, to: &program)
        }
        append(.jump, yes: 4, no: 8, to: &program)
        return program
    }

    /// A comparison has the length of two operations. The port is in the place of the second one's `no`.
    private static func append(_ code: Code, no: Int, port: UInt16, to program: inout [UInt8]) {
        append(code, yes: 8, no: no, to: &program)
        program += [0, 0]
        program.append(number: port)
    }

    private static func append(_ code: Code, yes: UInt8, no: Int, to program: inout [UInt8]) {
        program += [code.number, yes]
        program.append(number: UInt16(no))
    }
}

/// The messages of one netlink datagram (netlink(7)). Pure: bytes in, messages out.
///
/// Each message starts with a header of 16 bytes: length, type, flags, sequence number, sender's port. The length is
/// limited by the datagram's end. A message that is cut off ends the iteration, and ``isCut`` is true.
struct NetlinkMessages: Sequence, IteratorProtocol {
    struct Message {
        let type: UInt16
        let flags: UInt16
        let sequence: UInt32
        let payload: UnsafeRawBufferPointer
    }

    static let headerSize = 16

    private var rest: UnsafeRawBufferPointer
    private(set) var isCut = false

    init(_ datagram: UnsafeRawBufferPointer) {
        rest = datagram
    }

    mutating func next() -> Message? {
        guard !rest.isEmpty else { return nil }
        guard let length: UInt32 = rest.number(at: 0), let type: UInt16 = rest.number(at: 4),
            let flags: UInt16 = rest.number(at: 6), let sequence: UInt32 = rest.number(at: 8),
            length >= Self.headerSize, length <= rest.count
        else {
            isCut = true
            rest = UnsafeRawBufferPointer(rebasing: rest[rest.endIndex...])
            return nil
        }
        let payload = UnsafeRawBufferPointer(rebasing: rest[Self.headerSize..<Int(length)])
        rest = UnsafeRawBufferPointer(rebasing: rest[Swift.min(rest.count, Int(length).alignedTo4)...])
        return Message(type: type, flags: flags, sequence: sequence, payload: payload)
    }
}

/// The attributes after a message's fixed part: length, type, value, padded to 4 bytes (rtnetlink(7)).
struct NetlinkAttributes: Sequence, IteratorProtocol {
    private var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) {
        rest = bytes
    }

    mutating func next() -> (type: UInt16, value: UnsafeRawBufferPointer)? {
        guard let length: UInt16 = rest.number(at: 0), let type: UInt16 = rest.number(at: 2),
            length >= 4, length <= rest.count
        else { return nil }
        let value = UnsafeRawBufferPointer(rebasing: rest[4..<Int(length)])
        rest = UnsafeRawBufferPointer(rebasing: rest[Swift.min(rest.count, Int(length).alignedTo4)...])
        return (type, value)
    }
}

extension Int {
    fileprivate var alignedTo4: Int { (self + 3) & ~3 }
}

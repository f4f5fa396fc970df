import Glibc
import SystemPackage

/// Asks the kernel for one connection by its two ends: sock_diag(7), SOCK_DIAG_BY_FAMILY without a dump.
struct SocketLookup {
    let family: IPAddress.Family
    let local: Endpoint
    let remote: Endpoint

    /// The inode under which the kernel knows it.
    func inode() throws(Errno) -> UInt64 {
        // NETLINK_SOCK_DIAG is 4 (include/uapi/linux/netlink.h).
        let netlink = socket(AF_NETLINK, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 4)
        guard netlink >= 0 else { throw Errno(rawValue: errno) }
        defer { close(netlink) }
        let question = request
        guard send(netlink, question, question.count, 0) == question.count else { throw Errno(rawValue: errno) }
        // The kernel has answered before send(2) returns.
        var answer = [UInt8](repeating: 0, count: 8192)
        let count = recv(netlink, &answer, answer.count, Int32(MSG_DONTWAIT))
        guard count >= 0 else { throw Errno(rawValue: errno) }
        return try Self.inode(in: answer[..<count])
    }

    /// struct nlmsghdr, then struct inet_diag_req_v2 (include/uapi/linux/inet_diag.h): 72 bytes.
    var request: [UInt8] {
        var bytes: [UInt8] = []
        func append(_ number: some FixedWidthInteger) { withUnsafeBytes(of: number) { bytes += $0 } }
        append(UInt32(72))
        // SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST; then sequence and port, which nobody else shares.
        append(UInt16(20))
        append(UInt16(1))
        append(UInt64(0))
        bytes += [UInt8(family == .ipv4 ? AF_INET : AF_INET6), UInt8(IPPROTO_TCP), 0, 0]
        append(UInt32.max)
        append(local.port.bigEndian)
        append(remote.port.bigEndian)
        for address in [local.address, remote.address] {
            bytes += address.bytes + [UInt8](repeating: 0, count: 16 - address.bytes.count)
        }
        append(UInt32(0))
        // INET_DIAG_NOCOOKIE
        append(UInt64.max)
        return bytes
    }

    /// The inode stands at byte 68 of struct inet_diag_msg; NLMSG_ERROR (2) carries an errno instead.
    static func inode(in answer: ArraySlice<UInt8>) throws(Errno) -> UInt64 {
        func number<Number: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: Number.Type) -> Number? {
            guard answer.count >= offset + MemoryLayout<Number>.size else { return nil }
            return answer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Number.self) }
        }
        switch number(4, UInt16.self) {
        case 20:
            guard let inode = number(16 + 68, UInt32.self) else { throw .ioError }
            return UInt64(inode)
        case 2:
            let status = number(16, Int32.self) ?? 0
            throw (-4095..<0).contains(status) ? Errno(rawValue: -status) : .ioError
        default: throw .ioError
        }
    }
}

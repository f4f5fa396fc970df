import Glibc
import SystemPackage

extension BorrowedSocket {
    /// What the socket says of itself, as a row of the table would; nil if it is no TCP socket that is
    /// established or listening.
    func row() -> SocketRow? {
        guard let kind = option(SO_PROTOCOL, like: Int32(0)), kind == Int32(IPPROTO_TCP) || isMultipath,
            let domain = option(SO_DOMAIN, like: Int32(0)), domain == AF_INET || domain == AF_INET6,
            let (state, idleSeconds) = stateAndIdle(),
            let local = endpoint(getsockname)
        else { return nil }
        let family: IPAddress.Family = domain == AF_INET ? .ipv4 : .ipv6
        let nowhere = Endpoint(address: family == .ipv4 ? IPAddress(ipv4: 0) : IPAddress(ipv6: 0, 0), port: 0)
        guard let remote = state == .listen ? nowhere : endpoint(getpeername) else { return nil }
        return SocketRow(
            family: family, local: local, remote: remote, state: state, timer: .other, uid: owner, inode: inode,
            idleSeconds: state == .established ? idleSeconds : nil, cookie: cookie)
    }

    private func stateAndIdle() -> (SocketRow.State, Double?)? {
        withUnsafeTemporaryAllocation(byteCount: TCPInfo.byteCount, alignment: 8) { bytes in
            var length = socklen_t(bytes.count)
            guard getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_INFO, bytes.baseAddress, &length) == 0, length > 0
            else { return nil }
            let info = UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, Int(length))])
            return SocketRow.State(kernel: info[0]).map { ($0, TCPInfo(info)?.idleSeconds) }
        }
    }

    private func endpoint(
        _ ask: (Int32, UnsafeMutablePointer<sockaddr>?, UnsafeMutablePointer<socklen_t>?) -> Int32
    ) -> Endpoint? {
        var storage = sockaddr_storage()
        return withUnsafeMutableBytes(of: &storage) { bytes in
            var length = socklen_t(bytes.count)
            guard ask(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length) == 0
            else { return nil }
            return Endpoint(socketAddress: UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, Int(length))]))
        }
    }
}

extension Endpoint {
    /// struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)).
    init?(socketAddress bytes: UnsafeRawBufferPointer) {
        guard let family: UInt16 = bytes.number(at: 0), let port: UInt16 = bytes.number(at: 2) else { return nil }
        let addressBytes = family == AF_INET ? 4..<8 : 8..<24
        guard family == AF_INET || family == AF_INET6, bytes.count >= addressBytes.upperBound,
            let address = IPAddress(bytes: bytes[addressBytes])
        else { return nil }
        self.init(address: address, port: UInt16(bigEndian: port))
    }
}

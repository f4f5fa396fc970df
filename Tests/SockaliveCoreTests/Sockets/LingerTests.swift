import CSockalive
import Glibc
import SystemPackage
import Testing

@testable import SockaliveCore

/// The owner of a borrowed socket has closed its descriptor. Then the close of the duplicate is the last one.
@Suite(.serialized, .enabled(if: MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"))
struct LiveLingerTests {
    private static let lingerSeconds: Int32 = 30

    @Test func `the last close does not wait for data that the peer does not read`() throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4])
        let (client, server) = connections.pairs[0]
        set(client, SO_LINGER, linger(l_onoff: 1, l_linger: Self.lingerSeconds))
        let sent = try fill(client)
        let start = ContinuousClock.now
        try borrowAndClose(client)
        #expect(start.duration(to: .now) < .seconds(Int(Self.lingerSeconds)) / 2)
        #expect(try count(of: server) == sent)
    }

    /// A linger of zero seconds asks for a reset. So it is with the owner's own close.
    @Test func `a linger of zero still resets the connection`() throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4])
        let (client, server) = connections.pairs[0]
        set(client, SO_LINGER, linger(l_onoff: 1, l_linger: 0))
        _ = try fill(client)
        try borrowAndClose(client)
        #expect(throws: Errno.connectionReset) { try count(of: server) }
    }

    /// Borrows it, lets the owner close it first, and closes it.
    private func borrowAndClose(_ descriptor: Int32) throws {
        let pidfd = sockalive_pidfd_open(getpid())
        defer { close(pidfd) }
        let borrowed = try BorrowedSocket(
            pidfd: pidfd, fd: descriptor, identity: SocketIdentity(inode: LiveConnections.inode(of: descriptor)))
        // The number stays taken: the owner of the connections closes it at its end.
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        #expect(dup2(null, descriptor) == descriptor)
        close(null)
        _ = consume borrowed
    }

    /// - Returns: how many bytes the kernel took; the peer reads none of them.
    private func fill(_ descriptor: Int32) throws -> Int {
        let bytes = [UInt8](repeating: 1, count: 1 << 16)
        var sent = 0
        while true {
            let count = send(descriptor, bytes, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            if count < 0 { return sent }
            sent += count
        }
    }

    /// - Returns: how many bytes come before the end of the stream.
    private func count(of descriptor: Int32) throws -> Int {
        set(descriptor, SO_RCVTIMEO, timeval(tv_sec: 20, tv_usec: 0))
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        var total = 0
        while true {
            let count = recv(descriptor, &bytes, bytes.count, 0)
            guard count >= 0 else { throw Errno(rawValue: errno) }
            if count == 0 { return total }
            total += count
        }
    }

    private func set<Value: BitwiseCopyable>(_ descriptor: Int32, _ option: Int32, _ value: Value) {
        var value = value
        setsockopt(descriptor, SOL_SOCKET, option, &value, socklen_t(MemoryLayout<Value>.size))
    }
}

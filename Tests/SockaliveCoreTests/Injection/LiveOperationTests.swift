import Glibc
import SystemPackage
import Testing

@testable import SockaliveCore

/// Real sockets of this process: they are found and set.
@Suite(.serialized, .enabled(if: MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"))
struct LiveOperationTests {
    private func treat(_ ports: Set<UInt16>, listeners: Bool, _ request: KeepaliveRequest) throws -> [SocketResult] {
        let procfs = try ProcFS()
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: ports, listeners: listeners))
        let snapshot = try Discovery(procfs: procfs, method: .pidfd).snapshot(of: selection)
        return snapshot.results(procfs, .inject, request)
    }

    private func option(_ descriptor: Int32, _ level: Int32, _ name: Int32) -> Int32 {
        var value: Int32 = -1
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, level, name, &value, &length)
        return value
    }

    @Test(arguments: LiveConnections.Kind.allCases)
    func `later connections of an injected listener inherit its keepalive`(kind: LiveConnections.Kind) throws {
        let connections = try LiveConnections(each: 1, kinds: [kind], keepaliveOn: .max)
        let results = try treat(connections.ports, listeners: true, KeepaliveRequest())
        #expect(results.count == 3)
        #expect(results.allSatisfy { $0.action == .set })
        let (_, accepted) = try connections.connectAnother(kind)
        #expect(option(accepted, SOL_SOCKET, SO_KEEPALIVE) == 1)
        #expect(option(accepted, Int32(IPPROTO_TCP), TCP_KEEPIDLE) == 600)
        #expect(option(accepted, Int32(IPPROTO_TCP), TCP_KEEPINTVL) == 60)
        #expect(option(accepted, Int32(IPPROTO_TCP), TCP_KEEPCNT) == 50)
    }

    @Test func `without the option a listener is left alone`() throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4], keepaliveOn: .max)
        #expect(try treat(connections.ports, listeners: false, KeepaliveRequest()).count == 2)
        #expect(option(connections.listeners[0], SOL_SOCKET, SO_KEEPALIVE) == 0)
    }

    @Test(.enabled(if: LiveConnections.hasMultipath, "this kernel has no MPTCP, or its probe times cannot be set"))
    func `an MPTCP socket is one socket, and is set like any other`() throws {
        let connections = try LiveConnections(each: 2, kinds: [.multipath], keepaliveOn: .max)
        let results = try treat(connections.ports, listeners: true, KeepaliveRequest())
        #expect(results.count == 5)
        #expect(results.allSatisfy { $0.failure == nil && $0.action == .set })
        #expect(results.allSatisfy { $0.socket.row.state == .listen || $0.idleSeconds != nil })
        for descriptor in connections.descriptors { #expect(option(descriptor, SOL_SOCKET, SO_KEEPALIVE) == 1) }
        let times = try treat(connections.ports, listeners: false, KeepaliveRequest(userTimeout: 5000))
        #expect(times.allSatisfy { $0.failure?.code == "ENOPROTOOPT" && $0.failure?.kind == .unsupported })
    }

    /// A subflow without the keepalive that its socket has, as Linux 5.13 to 6.14 make it when it joins later.
    @Test(.enabled(if: LiveConnections.hasMultipath, "this kernel has no MPTCP, or its probe times cannot be set"))
    func `an MPTCP socket whose subflow has no timer is not called protected, and gets its own values again`() throws {
        let connections = try LiveConnections(each: 1, kinds: [.multipath], keepaliveOn: .max)
        let own = KeepaliveRequest(idle: 100, interval: 10, count: 5)
        #expect(try treat(connections.ports, listeners: false, own).allSatisfy { $0.action == .set })
        let procfs = try ProcFS()
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: connections.ports))
        let found = try Discovery(procfs: procfs, method: .pidfd).snapshot(of: selection)
        let sockets = found.sockets.map { socket in
            let row = socket.row
            return DiscoveredSocket(
                process: socket.process, holders: socket.holders,
                row: SocketRow(
                    family: row.family, local: row.local, remote: row.remote, state: row.state, timer: .none,
                    uid: row.uid, inode: row.inode, idleSeconds: row.idleSeconds, cookie: row.cookie))
        }
        let snapshot = Snapshot(
            sockets: sockets, processes: found.processes, unanswered: found.unanswered, handles: found.handles)
        let listed = snapshot.results(procfs, .list)
        #expect(listed.count == 2 && listed.allSatisfy { $0.after == nil && $0.verdict == .unprotected })
        let treated = snapshot.results(procfs, .inject)
        #expect(treated.allSatisfy { $0.action == .set && $0.after?.brief == "100/10/5" && $0.before == nil })
        let untouched = found.results(procfs, .inject)
        #expect(untouched.allSatisfy { $0.action == .unchanged && $0.before?.brief == "100/10/5" })
        // A plain socket has been set since its row was read.
        let plain = try LiveConnections(each: 1, kinds: [.ipv4], keepaliveOn: 1)
        let other = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: plain.ports))
        let before = try Discovery(procfs: procfs, method: .pidfd).snapshot(of: other)
        _ = try treat(plain.ports, listeners: false, KeepaliveRequest())
        #expect(before.results(procfs, .list).allSatisfy { $0.after?.brief == "600/60/50" })
        #expect(before.results(procfs, .inject).allSatisfy { $0.action == .unchanged })
    }

    @Test func `the idle time is read once, with the table or with the socket`() throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4])
        let procfs = try ProcFS()
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: connections.ports))
        for source in SocketSource.allCases {
            let snapshot = try Discovery(procfs: procfs, source: source, method: .pidfd).snapshot(of: selection)
            #expect(snapshot.sockets.allSatisfy { ($0.row.idleSeconds == nil) == (source == .procfs) })
            #expect(snapshot.results(procfs, .list).allSatisfy { $0.idleSeconds != nil })
        }
    }

    /// The timer fires later than the idle time ends, because it was armed again when keepalive was enabled.
    @Test func `the next probe is due when both timer and idle time have ended`() throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4], keepaliveOn: 1)
        let procfs = try ProcFS()
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: connections.ports))
        let snapshot = try Discovery(procfs: procfs, method: .pidfd).snapshot(of: selection)
        let dues = snapshot.results(procfs, .list).map(\.nextProbeSeconds)
        #expect(dues.count { $0 == nil } == 1)
        #expect(dues.compactMap(\.self).allSatisfy { (7000...7201).contains($0) })
    }
}

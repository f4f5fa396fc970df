import CSockalive
import Glibc
import SystemPackage
import Testing

@testable import SockaliveCore

/// Compares the sources with each other and with the real sockets of this process.
@Suite(.serialized) struct LiveSourceTests {
    private static let hasDiag = (try? SockDiagSocket()) != nil

    private func snapshot(
        _ connections: LiveConnections, _ source: SocketSource, listeners: Bool = true, halfClosed: Bool = false,
        method: Method = .ptrace
    ) throws -> [UInt64: DiscoveredSocket] {
        let discovery = Discovery(procfs: try ProcFS(), source: source, method: method)
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]),
            sockets: SocketSelection(ports: connections.ports, listeners: listeners, halfClosed: halfClosed))
        let sockets = try discovery.snapshot(of: selection).sockets
        let byInode = Dictionary(grouping: sockets, by: \.inode)
        #expect(byInode.values.allSatisfy { $0.count == 1 }, "no socket twice")
        return byInode.compactMapValues(\.first)
    }

    @Test(arguments: [SocketSource.auto, .procfs])
    func `a stopped search ends with the reason`(source: SocketSource) throws {
        let connections = try LiveConnections(each: 1)
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: connections.ports))
        let reason = StopReason.timeout(Seconds(1))
        #expect(throws: reason) {
            try Discovery(procfs: try ProcFS(), source: source).snapshot(of: selection, stopReason: { reason })
        }
    }

    /// As if the table had been read before they were made.
    @Test func `sockets that are newer than the table are found, also where nothing can be borrowed`() throws {
        let connections = try LiveConnections(each: 2, kinds: [.ipv4])
        let procfs = try ProcFS()
        let process = try #require(ProcessHandle(pid: getpid(), procfs: procfs))
        let namespace = try #require(NetworkNamespaces(procfs: procfs).own)
        let newer = connections.pairs.flatMap { [$0.client, $0.server] }
        let descriptors = (newer + connections.listeners).map {
            SocketDescriptor(fd: $0, inode: LiveConnections.inode(of: $0))
        }
        let entry = FDScan.Entry(process: process, descriptors: descriptors, needsThreads: false)
        for source in [SocketSource.auto, .procfs] {
            let elsewhere = SocketsElsewhere(
                procfs: procfs,
                tables: SocketTables(
                    procfs: procfs, source: source, selection: SocketSelection(ports: connections.ports)),
                mayBorrow: false, limits: ProcessLimits(), stopReason: { nil })
            let rows = try elsewhere.rows(of: [entry], namespace: namespace, known: [namespace])
            #expect(Set(rows.all.map(\.row.inode)) == Set(newer.map(LiveConnections.inode)), "\(source)")
        }
    }

    private func expectSame(_ one: SocketRow, _ other: SocketRow) {
        #expect(one.family == other.family)
        #expect(one.local == other.local)
        #expect(one.remote == other.remote)
        #expect(one.state == other.state)
        #expect(one.uid == other.uid)
        switch (one.timer, other.timer) {
        case (.keepalive(let first), .keepalive(let second)): #expect(abs(first - second) < 2)
        default: #expect(one.timer == other.timer)
        }
    }

    @Test(.enabled(if: hasDiag, "this kernel has no sock_diag"))
    func `both tables are equal for 1,000 live sockets`() throws {
        let connections = try LiveConnections(each: 167)
        let truth = Set(connections.descriptors.map(LiveConnections.inode))
        #expect(truth.count >= 1000)
        let diag = try snapshot(connections, .diag)
        let procfs = try snapshot(connections, .procfs)
        #expect(Set(diag.keys) == truth)
        #expect(Set(procfs.keys) == truth)
        for (inode, socket) in diag {
            let other = try #require(procfs[inode])
            #expect(socket.holders == other.holders)
            expectSame(socket.row, other.row)
            #expect((socket.row.idleSeconds == nil) == (socket.row.state == .listen))
        }
        let kinds = Set(diag.values.map { "\($0.row.family) \($0.row.state) \($0.row.local.address.unmapped.family)" })
        #expect(kinds.count == 5, "\(kinds)")
    }

    @Test(.enabled(if: hasDiag && MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"))
    func `a borrowed socket gives the same row as the table`() throws {
        let connections = try LiveConnections(each: 5)
        let borrowed = try snapshot(connections, .auto, method: .pidfd)
        let diag = try snapshot(connections, .diag)
        #expect(borrowed.count == 33)
        #expect(borrowed.keys == diag.keys)
        for (inode, socket) in borrowed {
            let other = try #require(diag[inode])
            if socket.row.state == .established { expectSame(socket.row, other.row) }
            #expect(socket.row.local == other.row.local)
            #expect(abs((socket.row.idleSeconds ?? 0) - (other.row.idleSeconds ?? 0)) < 2)
        }
    }

    @Test(.enabled(if: hasDiag && MethodChoice.auto.resolved() == .pidfd, "nothing to compare here"))
    func `tcp_info from the table belongs to the socket, and to no other in its place`() throws {
        let connections = try LiveConnections(each: 3)
        var diag = try SockDiagSocket()
        let sockets = try snapshot(connections, .procfs, listeners: false)
        let handle = sockalive_pidfd_open(getpid())
        defer { close(handle) }
        #expect(sockets.count == 18)
        for (inode, socket) in sockets {
            let holder = try #require(socket.holders.first)
            var borrowed = try BorrowedSocket(pidfd: handle, fd: holder.fd, identity: SocketIdentity(inode: inode))
            let told = try borrowed.tcpInfo()
            let seen = try #require(try diag.tcpInfo(of: socket.row))
            #expect(seen.state == told.state && seen.segmentsSent == told.segmentsSent)
            #expect(abs(seen.millisecondsSinceAck - told.millisecondsSinceAck) < 1000)
            let row = socket.row
            let other = SocketRow(
                family: row.family, local: row.local, remote: row.remote, state: row.state, timer: row.timer,
                uid: row.uid, inode: inode + 1)
            #expect(try diag.tcpInfo(of: other) == nil)
        }
    }

    @Test(arguments: SocketSource.allCases)
    func `listeners are found only on request`(source: SocketSource) throws {
        let connections = try LiveConnections(each: 1)
        let sockets = try snapshot(connections, source, listeners: false)
        #expect(sockets.count == 6)
        #expect(sockets.values.allSatisfy { $0.row.state == .established })
    }

    @Test(arguments: SocketSource.allCases, [Method.pidfd, .ptrace])
    func `half-closed connections are found only where they are asked for`(source: SocketSource, method: Method) throws
    {
        let connections = try LiveConnections(each: 2, keepaliveOn: 2)
        let closed = [1, 3, 5]
        for index in closed { connections.halfClose(index) }
        let without = try snapshot(connections, source, listeners: false, method: method)
        #expect(without.count == 6 && without.values.allSatisfy { $0.row.state == .established })
        let sockets = try snapshot(connections, source, listeners: false, halfClosed: true, method: method)
        #expect(sockets.count == 12)
        for index in closed {
            let client = try #require(sockets[LiveConnections.inode(of: connections.pairs[index].client)]).row
            let server = try #require(sockets[LiveConnections.inode(of: connections.pairs[index].server)]).row
            #expect(client.state == .finWait2 && server.state == .closeWait)
            #expect(client.remote == server.local && client.local == server.remote)
            #expect(server.timer == SocketRow.Timer.none)
            guard case .keepalive(let seconds) = client.timer else { throw Errno.invalidArgument }
            #expect((7000...7200).contains(seconds))
            #expect((client.idleSeconds == nil) == (source == .procfs) && (client.idleSeconds ?? 0) < 60)
        }
    }

    /// The kernel finds such a socket only if it is told the interface (inet_sk_bound_dev_eq).
    @Test(.enabled(if: hasDiag && MethodChoice.auto.resolved() == .pidfd, "nothing to compare here"))
    func `a socket that is bound to an interface is looked up with it`() throws {
        let connections = try LiveConnections(each: 1, keepaliveOn: 1)
        for pair in connections.pairs {
            var name = Array("lo".utf8)
            try #require(
                setsockopt(pair.client, SOL_SOCKET, SO_BINDTODEVICE, &name, socklen_t(name.count)) == 0)
        }
        var diag = try SockDiagSocket()
        for source in [SocketSource.auto, .diag] {
            let sockets = try snapshot(connections, source, listeners: false, method: .pidfd)
            for pair in connections.pairs {
                let row = try #require(sockets[LiveConnections.inode(of: pair.client)]).row
                #expect(row.interface == NetworkInterface(index: if_nametoindex("lo")))
                guard case .keepalive = row.timer else { throw Errno.invalidArgument }
                #expect(try diag.tcpInfo(of: row) != nil)
                #expect(sockets[LiveConnections.inode(of: pair.server)]?.row.interface == nil)
            }
        }
    }

    /// FIN_WAIT2 without an owner: the kernel alone keeps it, and nobody can set its options.
    @Test(arguments: SocketSource.allCases, [Method.pidfd, .ptrace])
    func `a half-closed connection that its owner has closed is nobody's`(source: SocketSource, method: Method) throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4], keepaliveOn: .max)
        connections.halfClose(0)
        connections.orphan(0, seconds: 100)
        var diag = try SockDiagSocket()
        var inodes: [UInt64] = []
        // A child that another test has just forked has all descriptors of this process until it executes, or ends.
        for _ in 0..<1000 where inodes != [0] {
            usleep(10_000)
            inodes = []
            try diag.dump(states: [.finWait2], ports: connections.ports) { inodes.append($0.inode) }
        }
        #expect(inodes == [0])
        let sockets = try snapshot(connections, source, listeners: false, halfClosed: true, method: method)
        #expect(sockets.values.map(\.row.state) == [.closeWait])
    }

    @Test(arguments: SocketSource.allCases)
    func `a peer's range is compared with the IPv4 address inside a mapped one`(source: SocketSource) throws {
        let connections = try LiveConnections(each: 2)
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]),
            sockets: SocketSelection(ports: connections.ports, remote: AddressRange("127.0.0.0/8")))
        let discovery = Discovery(procfs: try ProcFS(), source: source, method: .pidfd)
        let rows = try discovery.snapshot(of: selection).sockets.map(\.row)
        #expect(rows.count == 8)
        #expect(rows.count { $0.family == .ipv6 } == 4)
    }

    @Test(arguments: SocketSource.allCases)
    func `a second descriptor is a second holder of one socket`(source: SocketSource) throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4])
        let original = connections.pairs[0].client
        let copy = fcntl(original, F_DUPFD_CLOEXEC, 0)
        defer { close(copy) }
        let socket = try #require(try snapshot(connections, source)[LiveConnections.inode(of: original)])
        #expect(socket.holders.map(\.fd) == [original, copy].sorted())
    }
}

@Suite struct CommScanTests {
    /// A folder in its place opens, and cannot be read.
    @Test func `a table that cannot be read is an error`() throws {
        let folder = FilePath("/tmp/sockalive-\(getpid())-table")
        defer { for path in ["77/stat", "77/net/tcp", "77/net", "77", ""] { _ = remove("\(folder)/\(path)") } }
        for path in ["", "77", "77/net", "77/net/tcp"] { mkdir("\(folder)/\(path)", 0o700) }
        let text = "77 (beremote) S 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n"
        let file = try FileDescriptor.open(
            folder.appending("77/stat"), .writeOnly, options: .create, permissions: .ownerReadWrite)
        try file.closeAfter { _ = try file.writeAll(text.utf8) }
        let procfs = try ProcFS(root: folder)
        let tables = SocketTables(procfs: procfs, source: .auto, selection: SocketSelection(ports: nil))
        let process = try #require(ProcessHandle(pid: 77, procfs: procfs))
        let failure = #expect(throws: SourceFailure.self) {
            try tables.rows(of: .inode(1), seenBy: [process], inodes: nil)
        }
        #expect(failure?.error == .isDirectory && failure?.line.contains("/proc/PID/net/tcp") == true)
    }

    @Test func `folder entries with numbers are processes`() {
        let entries = bytes(
            """
            01000000 00000000 02000000 00000000 1800 04 34373131 00   # 4711
            02000000 00000000 03000000 00000000 1800 04 74747900 00   # tty
            03000000 00000000 04000000 00000000 1800 04 37370000 00   # 77
            """)
        func numbers(_ entries: some Collection<UInt8>) -> [Int32] {
            Array(entries).withUnsafeBytes { Array(DirectoryEntries($0)) }
        }
        #expect(numbers(entries) == [4711, 77])
        for length in 0..<entries.count { #expect([4711, 77].starts(with: numbers(entries[..<length]))) }
    }

    @Test func `threads that share the list find the same as one thread`() throws {
        let procfs = try ProcFS()
        let name = try procfs.read("self/comm") { UntrustedText($0.dropLast()) }
        let scan = CommScan(root: procfs.root.rawValue, names: [name, UntrustedText("kthreadd")])
        // Each process, and whether it matches. Some come and go, or get another name, meanwhile.
        func one() throws -> [Int32: Bool] {
            Dictionary(uniqueKeysWithValues: try procfs.numbers(in: ".").map { ($0, scan.matches($0)) })
        }
        for _ in 0..<20 {
            let before = try one()
            let found = try scan.matching()
            let lasting = try one().filter { before[$0.key] == $0.value }
            #expect(found.contains(getpid()))
            #expect(found == Array(Set(found)).sorted())
            #expect(found.filter { lasting[$0] != nil } == lasting.filter(\.value).keys.sorted())
        }
    }
}

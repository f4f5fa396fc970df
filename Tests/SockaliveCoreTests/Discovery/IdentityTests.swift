import CSockalive
import Glibc
import Synchronization
import SystemPackage
import Testing

@testable import SockaliveCore

/// The socket that is found is the socket that is set, even if numbers are reused fast.
@Suite(.serialized) struct LiveIdentityTests {
    private func inode(of descriptor: Int32) -> UInt64? {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    private func isKept(_ descriptor: Int32) -> Bool {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &value, &length)
        return value != 0
    }

    /// A thread that puts wanted and unwanted sockets under the same few numbers in turn.
    private final class Shuffler: Sendable {
        private let isStopped = Atomic(false)
        private let sockets: [Int32]
        private let numbers: ClosedRange<Int32>
        /// Besides, it starts threads with tables of their own, which soon end: each keeps the numbers as they were.
        private let hasThreads: Bool
        private let thread = Mutex<pthread_t?>(nil)

        init(sockets: [Int32], numbers: ClosedRange<Int32>, hasThreads: Bool) {
            self.hasThreads = hasThreads
            self.sockets = sockets
            self.numbers = numbers
            var thread = pthread_t()
            let shuffler = Unmanaged.passRetained(self).toOpaque()
            let status = pthread_create(
                &thread, nil,
                { shuffler in
                    Unmanaged<Shuffler>.fromOpaque(shuffler!).takeRetainedValue().run()
                    return nil
                }, shuffler)
            self.thread.withLock { $0 = status == 0 ? thread : nil }
        }

        private func run() {
            var random = SeededGenerator(seed: 1)
            while !isStopped.load(ordering: .relaxed) {
                if hasThreads, random.below(20) == 0 {
                    _ = WorkerThread.share(among: 2) { _ in usleep(UInt32.random(in: 0...200)) }
                }
                let number = numbers.lowerBound + Int32(random.below(numbers.count))
                _ = duplicate(sockets[random.below(sockets.count)], as: number)
            }
        }

        func stop() {
            isStopped.store(true, ordering: .relaxed)
            self.thread.withLock { if let thread = $0 { pthread_join(thread, nil) } }
            for number in numbers { close(number) }
        }
    }

    @Test(
        .enabled(if: MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"),
        arguments: zip([40, 500, 40], [false, false, true]))
    func `a descriptor number that is reused never sets another socket`(strangers: Int, hasThreads: Bool) throws {
        let wanted = try LiveConnections(each: 4, kinds: [.ipv4], keepaliveOn: .max)
        let unwanted = try LiveConnections(each: strangers / 2, kinds: [.ipv4], keepaliveOn: .max)
        let sockets = wanted.pairs.map(\.client) + unwanted.pairs.prefix(4).map(\.client)
        let shuffler = Shuffler(sockets: sockets, numbers: 4000...4007, hasThreads: hasThreads)
        defer { shuffler.stop() }
        let procfs = try ProcFS()
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: wanted.ports))
        var changed = 0
        for round in 0..<60 {
            let source: SocketSource = round % 3 == 0 ? .diag : round % 3 == 1 ? .procfs : .auto
            let discovery = Discovery(procfs: procfs, source: source, method: .pidfd)
            // The last holder of each socket has one of the shuffled numbers, and is tried first.
            let found = try discovery.snapshot(of: selection)
            let shuffled = found.sockets.map { socket in
                DiscoveredSocket(process: socket.process, holders: socket.holders.suffix(1), row: socket.row)
            }
            let snapshot = Snapshot(
                sockets: shuffled, processes: found.processes, unanswered: found.unanswered, handles: found.handles)
            let results = snapshot.results(procfs, .inject, KeepaliveRequest(enabled: round % 2 == 0))
            // It is found again under another number.
            let codes = Set(results.compactMap { $0.failure?.code })
            #expect(codes.isSubset(of: ["ESTALE"]), "\(codes)")
            changed += shuffled.count { socket in
                socket.holders.contains { inode(of: $0.fd) != socket.inode }
            }
            #expect(!unwanted.descriptors.contains(where: isKept))
        }
        #expect(changed > 0, "no descriptor changed hands in between: the test tests nothing")
    }

    /// For kernels without pidfd_open. A fixture uses the same code.
    @Test func `without a pidfd the start time detects a reused PID`() throws {
        let folder = FilePath("/tmp/sockalive-\(getpid())-fixture")
        defer { for path in ["77/stat", "77", ""] { _ = "\(folder)/\(path)".withCString { remove($0) } } }
        mkdir(folder.string, 0o700)
        mkdir(folder.appending("77").string, 0o700)
        func write(startTime: Int) throws {
            let text = "77 (beremote) S 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 \(startTime) 0 0\n"
            let file = try FileDescriptor.open(
                folder.appending("77/stat"), .writeOnly, options: [.create, .truncate], permissions: [.ownerReadWrite])
            try file.closeAfter { _ = try file.writeAll(text.utf8) }
        }
        try write(startTime: 4711)
        let procfs = try ProcFS(root: folder)
        let handle = try #require(ProcessHandle(pid: 77, procfs: procfs))
        #expect(handle.descriptor == nil)
        #expect(handle.isAlive(procfs))
        try write(startTime: 4712)
        #expect(!handle.isAlive(procfs))
        #expect(ProcessHandle(pid: 78, procfs: procfs) == nil)
    }

    // MARK: an inode number has 32 bits, and is reused

    /// A `/proc` whose processes have one descriptor each, all with the inode 7.
    private final class Fixture {
        let folder = FilePath("/tmp/sockalive-\(getpid())-\(UInt32.random(in: 0...UInt32.max))")

        /// - Parameter rows: the endpoints of the sockets with the inode 7 in the process's table.
        func add(_ pid: Int, namespace: Int, rows: [String]) throws {
            for path in ["\(pid)/fd", "\(pid)/ns", "\(pid)/net", "\(pid)/task/\(pid)/fd"] {
                var part = folder
                mkdir(part.string, 0o700)
                for component in FilePath(path).components {
                    part.append(component)
                    mkdir(part.string, 0o700)
                }
            }
            let fields = "S 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
            let table = rows.enumerated().map { number, ends in
                "   \(number): \(ends) 01 00000000:00000000 00:00000000 00000000  0  0 7 2 0000000000000000 20 4 30 10\n"
            }
            let texts = [
                "stat": "\(pid) (beremote) \(fields)\n", "comm": "beremote\n", "status": "Uid:\t0\t0\t0\t0\n",
                "net/tcp": tableHeader + table.joined(), "net/tcp6": tableHeader,
            ]
            for (name, text) in texts {
                let file = try FileDescriptor.open(
                    folder.appending("\(pid)/\(name)"), .writeOnly, options: .create, permissions: .ownerReadWrite)
                try file.closeAfter { _ = try file.writeAll(text.utf8) }
            }
            symlink("socket:[7]", folder.appending("\(pid)/fd/5").string)
            symlink("net:[\(namespace)]", folder.appending("\(pid)/ns/net").string)
        }

        func sockets() throws -> [DiscoveredSocket] {
            let selection = Selection(
                processes: ProcessSelection(names: ["beremote"]), sockets: SocketSelection(ports: [5633]))
            return try Discovery(procfs: try ProcFS(root: folder)).snapshot(of: selection).sockets
        }

        deinit { _ = system("rm -rf '\(folder)'") }
    }

    private static let ends = ["0100007F:CD7C 0100007F:1601", "0100007F:CD7D 0100007F:1601"]

    @Test func `sockets of two network namespaces never merge`() throws {
        let fixture = Fixture()
        try fixture.add(77, namespace: 1, rows: [Self.ends[0]])
        try fixture.add(78, namespace: 2, rows: [Self.ends[1]])
        let sockets = try fixture.sockets()
        #expect(sockets.map(\.holders) == [[SocketHolder(pid: 77, fd: 5)], [SocketHolder(pid: 78, fd: 5)]])
        #expect(sockets.map(\.row.local.port) == [52604, 52605])
        // Only inode and cookie identify each socket, and this table has no cookies.
        #expect(sockets.allSatisfy { $0.identity.sharesInode })
    }

    @Test func `two sockets with one inode are two, and have all possible descriptors`() throws {
        let fixture = Fixture()
        try fixture.add(77, namespace: 1, rows: Self.ends)
        try fixture.add(78, namespace: 1, rows: Self.ends)
        let sockets = try fixture.sockets()
        #expect(Set(sockets.map(\.row.local.port)) == [52604, 52605])
        #expect(sockets.allSatisfy { $0.holders.map(\.pid) == [77, 78] && $0.identity.sharesInode })
    }

    /// Where a source tells the interface and no cookie.
    @Test func `the same ends on two links are two sockets`() throws {
        let fixture = Fixture()
        try fixture.add(77, namespace: 1, rows: [])
        let procfs = try ProcFS(root: fixture.folder)
        let search = ProcessSearch(procfs: procfs, [ProcessSelection(pids: [77])])
        let handle = try #require(try search.processes().found.first)
        let process = try #require(NetworkNamespaces(procfs: procfs).member(handle))
        let end = Endpoint(address: try #require(IPAddress("fe80::1")), port: 5633)
        let rows = [1, 2, 2].map { index in
            SocketRow(
                family: .ipv6, local: end, remote: end, state: .established, timer: .none, uid: 0, inode: 7,
                interface: NetworkInterface(index: index))
        }
        #expect(!rows[0].isSameConnection(as: rows[1]) && rows[1].isSameConnection(as: rows[2]))
        var collector = SocketCollector(procfs: procfs, search: search, areCookiesGlobal: false, rowCount: 0)
        collector.add(process) { add in
            for (index, row) in rows.enumerated() {
                add(Int32(5 + index), FoundRow(row: row, namespace: process.namespace), nil)
            }
        }
        let sockets = collector.snapshot(processes: [77]).sockets
        #expect(sockets.map { $0.holders.map(\.fd) } == [[5], [6, 7]])
    }

    /// The sockets of two namespaces are put in order behind each other. Whoever looks for them by their numbers from
    /// before finds others.
    ///
    /// - Parameter areNumbered: whether the rows' numbers are handed on.
    @Test(arguments: [false, true])
    func `a socket that a readable process holds is not told of a hidden one, too`(areNumbered: Bool) throws {
        let fixture = Fixture()
        for (pid, namespace) in [(77, 1), (78, 2), (79, 1), (80, 1)] {
            try fixture.add(pid, namespace: namespace, rows: [])
        }
        let procfs = try ProcFS(root: fixture.folder)
        let search = ProcessSearch(procfs: procfs, [ProcessSelection(pids: [77, 78, 79, 80])])
        let members = try search.processes().found.compactMap { NetworkNamespaces(procfs: procfs).member($0) }
        let byPID = Dictionary(uniqueKeysWithValues: members.map { ($0.pid, $0) })
        func row(_ inode: UInt64) -> SocketRow {
            let end = Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: UInt16(inode))
            return SocketRow(
                family: .ipv4, local: end, remote: end, state: .established, timer: .none, uid: 0, inode: inode)
        }
        var collector = SocketCollector(procfs: procfs, search: search, areCookiesGlobal: false, rowCount: 3)
        let readable: [Int32] = [77, 79, 78]
        for (number, pid) in readable.enumerated() {
            let process = try #require(byPID[pid])
            let row = FoundRow(row: row(UInt64(pid)), namespace: process.namespace)
            collector.add(process) { add in
                for fd in [5, 6] as [Int32] { add(fd, row, areNumbered ? number : nil) }
            }
        }
        // Besides, a socket that nobody readable holds.
        let table = NamespaceRows([row(77), row(79), row(100)])
        collector.deny(try #require(byPID[80]), .permissionDenied, rows: table)
        let sockets = collector.snapshot(processes: [77, 78, 79, 80]).sockets
        #expect(sockets.map(\.inode) == [77, 78, 79, 100])
        #expect(sockets.map(\.holder?.pid) == [77, 78, 79, nil])
        #expect(sockets.map { $0.holders.map(\.fd) } == [[5, 6], [5, 6], [5, 6], []])
    }

    @Test func `one socket of two processes is one`() throws {
        let fixture = Fixture()
        try fixture.add(77, namespace: 1, rows: [Self.ends[0]])
        try fixture.add(78, namespace: 1, rows: [Self.ends[0]])
        let sockets = try fixture.sockets()
        #expect(sockets.map { $0.holders.map(\.pid) } == [[77, 78]])
        #expect(sockets.allSatisfy { !$0.identity.sharesInode })
    }

    @Test(.enabled(if: MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"))
    func `a descriptor is the socket only if the cookie is equal, too`() throws {
        let connections = try LiveConnections(each: 1, kinds: [.ipv4])
        let client = connections.pairs[0].client
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: connections.ports))
        for source in [SocketSource.auto, .diag] {
            let discovery = Discovery(procfs: try ProcFS(), source: source, method: .pidfd)
            let snapshot = try discovery.snapshot(of: selection)
            let found = try #require(
                snapshot.sockets.first { $0.holders.contains(SocketHolder(pid: getpid(), fd: client)) })
            let cookie = try #require(found.cookie)
            let handle = sockalive_pidfd_open(getpid())
            defer { close(handle) }
            func borrow(_ cookie: UInt64?) throws {
                let identity = SocketIdentity(inode: found.inode, cookie: cookie)
                _ = try BorrowedSocket(pidfd: handle, fd: client, identity: identity)
            }
            try borrow(cookie)
            try borrow(nil)
            #expect(throws: Errno.staleNFSFileHandle) { try borrow(cookie &+ 1) }
        }
    }

    @Test func `a process that has ended is not alive, even as a zombie`() throws {
        let procfs = try ProcFS()
        var pid: pid_t = 0
        var words: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("1000"), nil]
        defer { for word in words { free(word) } }
        #expect(posix_spawnp(&pid, "sleep", nil, nil, &words, nil) == 0)
        let handle = try #require(ProcessHandle(pid: pid, procfs: procfs))
        #expect(handle.isAlive(procfs))
        kill(pid, SIGKILL)
        // It is a zombie until waitid reaps it.
        var information = siginfo_t()
        waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT)
        #expect(handle.descriptor == nil || !handle.isAlive(procfs))
        waitpid(pid, nil, 0)
        #expect(ProcessHandle(pid: pid, procfs: procfs) == nil)
    }
}

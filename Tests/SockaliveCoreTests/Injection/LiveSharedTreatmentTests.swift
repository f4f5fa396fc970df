import CSockalive
import Glibc
import SystemPackage
import Testing

@testable import SockaliveCore

/// Sockets of this process, shared out among threads.
@Suite(.serialized, .enabled(if: MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"))
struct LiveSharedTreatmentTests {
    private let sharing = Sharing(threads: 4, minSockets: 1)
    /// More than three threads take at once.
    private static let many = 120

    private func snapshot(_ connections: LiveConnections, _ procfs: ProcFS) throws -> Snapshot {
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: connections.ports))
        return try Discovery(procfs: procfs, method: .pidfd).snapshot(of: selection)
    }

    /// - Returns: the results by number, and how often each was told.
    private func treat(
        _ snapshot: Snapshot, _ procfs: ProcFS, _ mode: KeepaliveRun.Mode = .inject,
        _ request: KeepaliveRequest = KeepaliveRequest(), choice: MethodChoice = .pidfd,
        stopReason: () -> StopReason? = { nil }, told: () -> Void = {}
    ) -> (results: [SocketResult?], counts: [Int]) {
        let access = SocketAccess(procfs: procfs, choice: choice, handles: snapshot.handles)
        let candidates = snapshot.sockets.map { AssignedSocket(socket: $0, request: request) }
        var results = [SocketResult?](repeating: nil, count: candidates.count)
        var counts = [Int](repeating: 0, count: candidates.count)
        KeepaliveRun(mode: mode, access: access, sharing: sharing).treat(candidates, stopReason: stopReason) {
            results[$0] = $1
            counts[$0] += 1
            told()
        }
        return (results, counts)
    }

    private func option(_ descriptor: Int32, _ level: Int32, _ name: Int32) -> Int32 {
        var value: Int32 = -1
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, level, name, &value, &length)
        return value
    }

    @Test func `each socket is treated and told once, as by one thread`() throws {
        let connections = try LiveConnections(each: 40)
        let procfs = try ProcFS()
        let found = try snapshot(connections, procfs)
        #expect(found.sockets.count == 240)
        let (listed, _) = treat(found, procfs, .list)
        let serial = found.results(procfs, .list)
        #expect(listed.map { $0?.before } == serial.map { $0.before })
        let (results, counts) = treat(found, procfs)
        #expect(counts.allSatisfy { $0 == 1 })
        for (socket, result) in zip(found.sockets, results) {
            let result = try #require(result)
            #expect(result.socket.cookie == socket.cookie && result.action == .set && result.method == .pidfd)
            #expect(result.rights != nil)
        }
        for pair in connections.pairs {
            for descriptor in [pair.client, pair.server] {
                #expect(option(descriptor, SOL_SOCKET, SO_KEEPALIVE) == 1)
                #expect(option(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE) == 600)
            }
        }
        #expect(treat(found, procfs).results.allSatisfy { $0?.action == .unchanged })
    }

    @Test func `what no thread can borrow at once is sought by the main thread, and told once`() throws {
        let connections = try LiveConnections(each: Self.many, kinds: [.ipv4])
        let procfs = try ProcFS()
        let found = try snapshot(connections, procfs)
        // One is closed, and one is moved to another number.
        let (closed, moved) = (connections.pairs[3].client, connections.pairs[5].client)
        let inode = LiveConnections.inode(of: moved)
        let closedInode = LiveConnections.inode(of: closed)
        let elsewhere = fcntl(moved, F_DUPFD_CLOEXEC, 700)
        defer { close(elsewhere) }
        for descriptor in [closed, moved] { #expect(duplicate(connections.listeners[0], as: descriptor) == descriptor) }
        let (results, counts) = treat(found, procfs)
        #expect(counts.allSatisfy { $0 == 1 })
        for result in results.compactMap(\.self) {
            switch result.socket.inode {
            case closedInode: #expect(result.failure?.isClosed == true && result.action == .failed)
            default: #expect(result.failure == nil && result.action == .set)
            }
        }
        #expect(results.contains { $0?.socket.inode == inode })
        #expect(option(elsewhere, SOL_SOCKET, SO_KEEPALIVE) == 1)
    }

    @Test func `an operation that fails is told as it would be by one thread`() throws {
        guard LiveConnections.hasMultipath else { return }
        let connections = try LiveConnections(each: Self.many, kinds: [.multipath])
        let procfs = try ProcFS()
        let found = try snapshot(connections, procfs)
        let request = KeepaliveRequest(userTimeout: 5000)
        let (results, counts) = treat(found, procfs, .inject, request)
        #expect(counts.allSatisfy { $0 == 1 })
        #expect(results.map { $0?.failure } == found.results(procfs, .inject, request).map { $0.failure })
        #expect(results.allSatisfy { $0?.failure?.code == "ENOPROTOOPT" })
    }

    @Test func `a reason to stop ends all threads, and the rest is told as not reached`() throws {
        let connections = try LiveConnections(each: 40)
        let procfs = try ProcFS()
        let found = try snapshot(connections, procfs)
        let told = Locked(0)
        let (results, counts) = treat(
            found, procfs,
            stopReason: { told.withLock { $0 >= 100 } ? .signal("SIGTERM") : nil },
            told: {
                let count = told.withLock {
                    $0 += 1
                    return $0
                }
                // Each thread asks once in a millisecond.
                if count >= 100 { usleep(1500) }
            })
        #expect(counts.allSatisfy { $0 == 1 })
        let unreached = results.count { $0?.failure?.code == "ECANCELED" }
        // Each of four threads may have been at a socket, and have begun another.
        #expect((132...140).contains(unreached))
        #expect(results.count { $0?.action == .set } == 240 - unreached)
    }

    /// Its holders are reached by a helper of that user, or by ptrace: never by several threads.
    @Test(.enabled(if: geteuid() == 0, "only root reaches another user's processes"))
    func `another user's sockets are borrowed by one thread`() throws {
        let procfs = try ProcFS()
        let child = sockalive_fork()
        if child == 0 {
            _ = sockalive_become(65534, 65534, nil, 0)
            while true { pause() }
        }
        defer {
            kill(child, SIGKILL)
            waitpid(child, nil, 0)
        }
        while (try? procfs.status("\(child)"))?.users.areAll(65534) != true { usleep(1000) }
        let handle = try #require(ProcessHandle(pid: child, procfs: procfs))
        let own = try #require(ProcessHandle(pid: getpid(), procfs: procfs))
        func socket(of pid: Int32, isUndecided: Bool = false) throws -> DiscoveredSocket {
            let nowhere = Endpoint(address: IPAddress(ipv4: 0), port: 1)
            let row = SocketRow(
                family: .ipv4, local: nowhere, remote: nowhere, state: .established, timer: .none, uid: 0, inode: 1)
            let process = ProcessIdentity(
                pid: pid, name: UntrustedText("x"), executable: nil, uid: 0, startTime: 1, networkNamespace: nil)
            var socket = DiscoveredSocket(process: process, holders: [SocketHolder(pid: pid, fd: 3)], row: row)
            socket.isUndecided = isUndecided
            return socket
        }
        let handles = [child: handle, getpid(): own]
        let access = SocketAccess(procfs: procfs, choice: .pidfd, handles: handles)
        #expect(try access.loan(of: socket(of: child)) == nil)
        #expect(try access.loan(of: socket(of: getpid())) != nil)
        #expect(try access.loan(of: socket(of: getpid(), isUndecided: true)) == nil)
        let hung = SocketAccess(
            procfs: procfs, choice: .pidfd, handles: handles, unreachable: [getpid(): .interfaceUnknown])
        #expect(try hung.loan(of: socket(of: getpid())) == nil)
        let byPtrace = SocketAccess(procfs: procfs, choice: .ptrace, handles: handles)
        #expect(try byPtrace.loan(of: socket(of: getpid())) == nil)
    }

    @Test func `few sockets start no thread`() {
        #expect(Sharing.standard.threads(for: 999) == 1)
        #expect(Sharing(threads: 2, minSockets: 1000).threads(for: 1000) == 2)
        #expect(Sharing(threads: 64, minSockets: 1000).threads(for: 18_000) == WorkerThread.maxCount - 1)
    }
}

import Glibc
import Synchronization
import SystemPackage
import Testing

@testable import SockaliveCore

/// What is found must be what is treated, however fast numbers change hands.
@Suite(.serialized) struct IdentityTests {
    private func isKept(_ descriptor: Int32) -> Bool {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &value, &length)
        return value != 0
    }

    /// A thread puts wanted and unwanted sockets in turn under the same few numbers.
    private final class Shuffler: Sendable {
        private let isStopped = Atomic(false)
        private let sockets: [Int32]
        private let numbers: ClosedRange<Int32>
        private let thread = Mutex<pthread_t?>(nil)

        init(sockets: [Int32], numbers: ClosedRange<Int32>) {
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
                let number = numbers.lowerBound + Int32(random.below(numbers.count))
                dup2(sockets[random.below(sockets.count)], number)
            }
        }

        func stop() {
            isStopped.store(true, ordering: .relaxed)
            self.thread.withLock { if let thread = $0 { pthread_join(thread, nil) } }
            for number in numbers { close(number) }
        }
    }

    @Test(.enabled(if: MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"), arguments: [40, 500])
    func `a descriptor that changes hands is never treated for another`(strangers: Int) throws {
        let wanted = try LiveConnections(each: 4, kinds: [.ipv4], keepaliveOn: .max)
        let unwanted = try LiveConnections(each: strangers / 2, kinds: [.ipv4], keepaliveOn: .max)
        let sockets = wanted.pairs.map(\.client) + unwanted.pairs.prefix(4).map(\.client)
        let shuffler = Shuffler(sockets: sockets, numbers: 4000...4007)
        defer { shuffler.stop() }
        let procfs = try ProcFS()
        let selection = Selection(
            processes: ProcessSelection(pids: [getpid()]), sockets: SocketSelection(ports: wanted.ports))
        var changed = 0
        for round in 0..<60 {
            let source: SocketSource = round % 3 == 0 ? .diag : round % 3 == 1 ? .procfs : .auto
            let discovery = Discovery(procfs: procfs, source: source, method: .pidfd)
            // The last holder of each is one of the shuffled numbers: that is where it is looked for.
            let found = try discovery.snapshot(of: selection)
            let shuffled = found.sockets.map { socket in
                DiscoveredSocket(process: socket.process, holders: socket.holders.suffix(1), row: socket.row)
            }
            let snapshot = Snapshot(
                sockets: shuffled, processes: found.processes, denied: found.denied, handles: found.handles)
            let rule = Rule(selection: selection, request: KeepaliveRequest(enabled: round % 2 == 0))
            let run = KeepaliveRun(procfs: procfs, mode: .inject, rules: RuleSet([rule]), choice: .pidfd)
            changed += run.results(for: snapshot).count { $0.failure?.code == "ESTALE" }
            #expect(!unwanted.descriptors.contains(where: isKept))
        }
        #expect(changed > 0, "no descriptor changed hands in between: the test tests nothing")
    }

    /// Kernels without pidfd_open; a fixture takes the same road.
    @Test func `without a pidfd the start time tells a recycled PID`() throws {
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

    @Test func `a process that has ended is not alive, though its number is still taken`() throws {
        let procfs = try ProcFS()
        var pid: pid_t = 0
        var words: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("1000"), nil]
        defer { for word in words { free(word) } }
        #expect(posix_spawnp(&pid, "sleep", nil, nil, &words, nil) == 0)
        let handle = try #require(ProcessHandle(pid: pid, procfs: procfs))
        #expect(handle.isAlive(procfs))
        kill(pid, SIGKILL)
        // A zombie until it is waited for.
        var information = siginfo_t()
        waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT)
        #expect(handle.descriptor == nil || !handle.isAlive(procfs))
        waitpid(pid, nil, 0)
        #expect(ProcessHandle(pid: pid, procfs: procfs) == nil)
    }
}

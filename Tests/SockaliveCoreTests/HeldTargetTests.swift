import Glibc
import Testing

@testable import SockaliveCore

/// A process that sleeps, with one TCP connection of this process as its descriptor 5.
private final class Sleeper {
    let pid: Int32
    let inode: UInt64
    private let connections: LiveConnections

    init() throws {
        connections = try LiveConnections(each: 1, kinds: [.ipv4])
        let client = connections.pairs[0].client
        inode = LiveConnections.inode(of: client)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, client, 5)
        defer { posix_spawn_file_actions_destroy(&actions) }
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("600"), nil]
        defer { for argument in arguments { free(argument) } }
        var child: pid_t = 0
        try #require(posix_spawn(&child, "/bin/sleep", &actions, nil, &arguments, environ) == 0)
        pid = child
        try #require(sleepsOn)
    }

    deinit {
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
    }

    var inspector: TargetInspector {
        get throws {
            TargetInspector(procfs: try ProcFS(), holder: SocketHolder(pid: pid, fd: 5), inode: inode)
        }
    }

    /// nil until it has its own code.
    private var state: Character? {
        let procfs = try? ProcFS()
        guard (try? procfs?.link("\(pid)/exe"))?.ends(with: "sleep".utf8) ?? false else { return nil }
        return (try? procfs?.read("\(pid)/stat") { ProcessStat($0) })??.state
    }

    /// It takes its sleep up again as soon as it is let go.
    var sleepsOn: Bool {
        for _ in 0..<2000 where state != "S" { usleep(1000) }
        return state == "S"
    }
}

extension BidirectionalCollection<UInt8> {
    fileprivate func ends(with other: some Collection<UInt8>) -> Bool { suffix(other.count).elementsEqual(other) }
}

#if arch(x86_64)
    @Suite struct HeldTargetTests {
        private func enabled(_ target: RemoteTarget) throws -> Int32 {
            try onOwnThread {
                var socket = try RemoteSocket(target)
                let value = try socket.keepalive().enabled
                _ = socket.release()
                return value ? 1 : 0
            }
        }

        @Test func `what was found out about a process is enough to call in it`() throws {
            let sleeper = try Sleeper()
            let target = try sleeper.inspector.target(known: nil)
            #expect(target.tid == sleeper.pid && target.code.isComplete && target.stacks.contains { $0.isMain })
            #expect(try enabled(target) == 0)
            #expect(sleeper.sleepsOn)
        }

        /// As after dlclose(3) or execve(2): other bytes stand there, or none.
        @Test(arguments: [UInt64(0x1000), 0x40], [true, false])
        func `code that is no longer there is noticed before anything is called`(shift: UInt64, isCall: Bool) throws {
            let sleeper = try Sleeper()
            let found = try sleeper.inspector.target(known: nil).code
            var moved = MachineCode(is32Bit: found.is32Bit)
            for (site, isMoved) in [(found.call, isCall), (found.sigreturn, !isCall)] {
                let site = try #require(site)
                site.bytes.withUnsafeBytes { moved.search($0, at: site.address - (isMoved ? shift : 0)) }
            }
            #expect(moved.isComplete && moved != found)
            let target = try sleeper.inspector.target(known: moved)
            let refusal = #expect(throws: RemoteSocket.Refusal.self) { try enabled(target) }
            #expect(refusal?.errno.rawValue == ENOEXEC)
            #expect(sleeper.sleepsOn)
            #expect(try enabled(try sleeper.inspector.target(known: nil)) == 0)
        }
    }
#endif

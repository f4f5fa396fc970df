import Glibc
import SystemPackage
import Testing

@testable import SockaliveCore

/// A sleeping process whose descriptor 5 is one TCP connection of this process.
private final class Sleeper {
    enum Kind {
        /// In clock_nanosleep, which continues from a restart block. Several calls need several stops.
        case sleep
        /// In read. Several calls are one chain.
        case cat
        /// In read, with a seccomp filter that makes getsockopt return EPERM.
        case filteredCat

        var command: [String] {
            switch self {
            case .sleep: ["/bin/sleep", "600"]
            case .cat: ["/bin/cat"]
            case .filteredCat: ["\(Self.programs)/deny-syscalls", "getsockopt=EPERM", "--", "/bin/cat"]
            }
        }

        /// Beside the test bundle, as for the tests of the built program. Missing programs are built.
        private static let programs: String = {
            let test = FilePath(String(decoding: (try? ProcFS().link("self/exe")) ?? [], as: UTF8.self))
            let folder = test.removingLastComponent().appending("programs").string
            let tests = FilePath(#filePath).removingLastComponent().removingLastComponent().removingLastComponent()
            _ = system("'\(tests.appending("Programs/build.sh"))' '\(folder)' >&2")
            return folder
        }()
    }

    let pid: Int32
    let inode: UInt64
    /// The cookie of its connection (SO_COOKIE).
    let cookie: UInt64
    private let connections: LiveConnections
    private let program: String
    private let input = Pipe()

    init(_ kind: Kind = .sleep) throws {
        program = kind == .sleep ? "sleep" : "cat"
        connections = try LiveConnections(each: 1, kinds: [.ipv4])
        let client = connections.pairs[0].client
        inode = LiveConnections.inode(of: client)
        var number: UInt64 = 0
        var length = socklen_t(8)
        getsockopt(client, SOL_SOCKET, SO_COOKIE, &number, &length)
        cookie = number
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, client, 5)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input.reading, 0)
        let command = kind.command
        var arguments = command.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        // The test's own thread blocks signals. With all signals blocked, none can end a chain.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var nothing = sigset_t()
        sigemptyset(&nothing)
        posix_spawnattr_setsigmask(&attributes, &nothing)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var child: pid_t = 0
        try #require(posix_spawn(&child, command[0], &actions, &attributes, &arguments, environ) == 0)
        pid = child
        try #require(sleepsOn)
    }

    deinit {
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
    }

    var inspector: TargetInspector {
        get throws {
            let procfs = try ProcFS()
            return TargetInspector(
                procfs: procfs, holder: SocketHolder(pid: pid, fd: 5), inode: inode, rights: OwnRights(procfs: procfs))
        }
    }

    /// nil until the process has its own code.
    private var state: Character? {
        let procfs = try? ProcFS()
        guard (try? procfs?.link("\(pid)/exe"))?.ends(with: program.utf8) ?? false else { return nil }
        return (try? procfs?.read("\(pid)/stat") { ProcessStat($0) })??.state
    }

    /// Whether it sleeps again after its release.
    var sleepsOn: Bool {
        for _ in 0..<2000 where state != "S" { usleep(1000) }
        return state == "S"
    }
}

/// A pipe that is open for the lifetime of its owner.
private final class Pipe {
    let reading: Int32
    private let writing: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0)
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        (reading, writing) = (ends[0], ends[1])
    }

    deinit {
        close(reading)
        close(writing)
    }
}

extension BidirectionalCollection<UInt8> {
    fileprivate func ends(with other: some Collection<UInt8>) -> Bool { suffix(other.count).elementsEqual(other) }
}

#if arch(x86_64)
    @Suite struct LiveHoldTests {
        private func enabled(_ target: RemoteTarget) throws -> Int32 {
            try onOwnThread {
                var socket = try RemoteSocket(target)
                let value = try socket.keepalive().enabled
                _ = try socket.release()
                return value ? 1 : 0
            }
        }

        @Test func `an inspected process is enough for a remote call`() throws {
            let sleeper = try Sleeper()
            let target = try sleeper.inspector.target(known: nil)
            #expect(target.tid == sleeper.pid && target.gadgets.isComplete && target.stacks.contains { $0.isMain })
            #expect(try enabled(target) == 0)
            #expect(sleeper.sleepsOn)
        }

        /// A value that did not stay, or an error, is no success. The calls of a chain do not tell the reason.
        @Test(arguments: [Sleeper.Kind.sleep, .cat])
        fileprivate func `each of several options has its own result`(kind: Sleeper.Kind) throws {
            let sleeper = try Sleeper(kind)
            let target = try sleeper.inspector.target(known: nil)
            let most = SocketOption(level: SOL_SOCKET, name: SO_SNDBUF)
            let options = try onOwnThread {
                var socket = try RemoteSocket(target)
                var options = [
                    OptionExchange(.keepalive, to: 1), OptionExchange(.idle, to: 40_000),
                    OptionExchange(.interval, to: 77), OptionExchange(most, to: 50_000),
                    OptionExchange(SocketOption(level: 12345, name: 1)),
                ]
                try socket.exchange(&options)
                _ = try socket.release()
                return options
            }
            #expect(options.map(\.error) == [nil, .invalidArgument, nil, nil, .notSupported])
            // The kernel doubles the size of a buffer (socket(7)).
            #expect(options[0].value == 1 && options[2].value == 77 && options[3].value == 100_000)
            #expect(sleeper.sleepsOn)
        }

        @Test func `a socket with the same inode and another cookie is another`() throws {
            let sleeper = try Sleeper(.cat)
            let target = try sleeper.inspector.target(known: nil)
            func confirm(_ cookie: UInt64?) throws {
                try onOwnThread {
                    var socket = try RemoteSocket(target)
                    try socket.confirm(SocketIdentity(inode: sleeper.inode, cookie: cookie, sharesInode: true))
                    _ = try socket.release()
                }
            }
            try confirm(nil)
            try confirm(sleeper.cookie)
            #expect(throws: Errno.staleNFSFileHandle) { try confirm(sleeper.cookie &+ 1) }
            #expect(sleeper.sleepsOn)
        }

        /// Old content of this program's memory is not written into the target.
        @Test func `reading an option leaks nothing to the target`() throws {
            let sleeper = try Sleeper(.cat)
            let target = try sleeper.inspector.target(known: nil)
            let bytes = try onOwnThread {
                var socket = try RemoteSocket(target)
                var bytes = [UInt8](repeating: 0xaa, count: 16)
                #expect(throws: Errno.notSupported) {
                    _ = try bytes.withUnsafeMutableBytes { try socket.get(level: 12345, name: 1, into: $0) }
                }
                _ = try socket.release()
                return bytes
            }
            // The call failed, so these bytes were in the target's memory before it.
            #expect(bytes.allSatisfy { $0 == 0 })
        }

        /// For example, a filter that was added after the inspection, which does not report it here.
        @Test(.enabled(if: geteuid() == 0, "only root may suspend a seccomp filter"))
        func `an unknown filter sees no remote call`() throws {
            let sleeper = try Sleeper(.filteredCat)
            let seen = try sleeper.inspector.target(known: nil)
            #expect(seen.status.seccomp != 0)
            let target = RemoteTarget(
                procfs: seen.procfs, holder: seen.holder, inode: seen.inode, tid: seen.tid, gadgets: seen.gadgets,
                status: try #require(ProcessStatus("Uid: 0 0 0 0\nNSpid: \(seen.tid)".utf8)), stacks: seen.stacks,
                spareDescriptor: seen.spareDescriptor, rights: seen.rights)
            #expect(try enabled(target) == 0)
            #expect(sleeper.sleepsOn)
        }

        /// As after dlclose(3) or execve(2): the bytes are different, or unmapped.
        @Test(arguments: [UInt64(0x1000), 0x40], [true, false])
        func `changed code is noticed before any call`(shift: UInt64, isCall: Bool) throws {
            let sleeper = try Sleeper()
            let found = try sleeper.inspector.target(known: nil).gadgets
            var moved = SyscallGadgets(is32Bit: found.is32Bit)
            for (gadget, isMoved) in [(found.call, isCall), (found.sigreturn, !isCall)] {
                let gadget = try #require(gadget)
                gadget.bytes.withUnsafeBytes { moved.search($0, at: gadget.address - (isMoved ? shift : 0)) }
            }
            #expect(moved.isComplete && moved != found)
            let target = try sleeper.inspector.target(known: moved)
            let attachError = #expect(throws: RemoteSocket.AttachError.self) { try enabled(target) }
            #expect(attachError?.errno.rawValue == ENOEXEC)
            #expect(sleeper.sleepsOn)
            #expect(try enabled(try sleeper.inspector.target(known: nil)) == 0)
        }
    }
#endif

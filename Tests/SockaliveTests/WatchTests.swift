import Foundation
import Glibc
import Testing

@testable import sockalive

extension ProcessTests {
    @Suite struct Watching {
        private let folder: TemporaryFolder

        init() throws {
            folder = try TemporaryFolder()
        }

        /// A watch after its first round, as its message to the service manager shows.
        private func start(
            _ options: [String], launcher: [String] = [], environment: [String: String] = [:],
            output: Child.Output = .pipe
        ) throws -> (Child, ServiceManagerStandIn) {
            let manager = try ServiceManagerStandIn()
            let child = try Child(
                launcher + [Program.path("sockalive"), "watch", "--lock", folder.path("w.lock")] + options,
                environment: ["NOTIFY_SOCKET": manager.address].merging(environment) { $1 }, output: output)
            #expect(manager.message(until: Deadline(.seconds(10)))?.hasPrefix("READY=1\nSTATUS=") == true)
            return (child, manager)
        }

        private func stop(_ child: Child, _ signal: Int32 = SIGTERM) -> (status: Int32, lines: [String]) {
            let start = ContinuousClock.now
            kill(child.pid, signal)
            var lines: [String] = []
            while let line = child.errors.line(until: Deadline(.seconds(10))) { lines.append(line) }
            let status = child.wait()
            #expect(start.duration(to: .now) < .seconds(10))
            return (status, lines)
        }

        private func waitForKeepalive(_ victim: Victim, _ limit: Duration) throws -> Bool {
            let deadline = Deadline(limit)
            while try victim.keepalive() != [.forOneHour] {
                guard deadline.millisecondsLeft > 0 else { return false }
            }
            return true
        }

        @Test func `a new connection is protected in time, and reported once`() throws {
            // No other process on this machine has this name.
            let name = "w\(UInt32.random(in: 0...UInt32.max))"
            let first = try Victim { $0.program = name }
            let (child, _) = try start(["--process", name, "--any-port", "--every", "1"])
            #expect(try first.keepalive() == [.forOneHour])
            let late = try Victim { $0.program = name }
            #expect(try waitForKeepalive(late, .seconds(20)))
            let end = stop(child)
            #expect(end.status == 0)
            #expect(end.lines.count == 2 && end.lines.allSatisfy { $0.contains("keepalive off → 600/60/50") })
            #expect(try late.echoes())
        }

        /// Otherwise the next opened file would get the number, and messages would be written into it.
        @Test func `a closed standard stream is never reused for a file`() throws {
            let launcher = ["/bin/sh", "-c", #"exec "$@" <&- >&- 2>&-"#, "sh"]
            let (child, _) = try start(["--process", "nobody-is-called-so"], launcher: launcher)
            for stream in 0...2 {
                let file = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(child.pid)/fd/\(stream)")
                #expect(file == "/")
            }
            #expect(stop(child).status == 0)
        }

        @Test(arguments: [SIGTERM, SIGINT]) func `a signal ends it at once with 0`(signal: Int32) throws {
            let victim = try Victim()
            let (child, manager) = try start(["--every", "1h", "--quiet"] + victim.selection)
            let end = stop(child, signal)
            #expect(end.status == 0 && end.lines.isEmpty)
            #expect(manager.message(until: Deadline(.seconds(20)))?.hasPrefix("STOPPING=1") == true)
        }

        @Test func `SIGHUP reads the rules again and runs at once, unless they are wrong`() throws {
            let (one, two) = (try Victim(), try Victim())
            let rules = folder.path("rules")
            func write(_ text: String) throws { try text.write(toFile: rules, atomically: true, encoding: .utf8) }
            try write(one.selection.joined(separator: " "))
            let (child, manager) = try start(["--every", "1h", "--config", rules])
            #expect(try two.keepalive() == [.untouched])

            try write("--porrt 1")
            kill(child.pid, SIGHUP)
            #expect(child.errors.line(until: Deadline(.seconds(20)))?.contains("keepalive off") == true)
            let complaint = child.errors.line(until: Deadline(.seconds(20)))
            #expect(complaint?.contains("\(rules), line 1: ") == true)
            while manager.message(until: Deadline(.milliseconds(500))) != nil {}

            try write(two.selection.joined(separator: " "))
            kill(child.pid, SIGHUP)
            #expect(try waitForKeepalive(two, .seconds(20)))
            #expect(stop(child).status == 0)
        }

        /// As Kubernetes mounts a ConfigMap: the file is a link through `..data`, which is switched by rename(2).
        @Test func `rules that change are read again, also through a switched link, and wrong ones are told once`()
            throws
        {
            let victims = try (0..<3).map { _ in try Victim() }
            func write(_ version: String, _ text: String) throws {
                let data = folder.path("..\(version)")
                mkdir(data, 0o755)
                try text.write(toFile: "\(data)/rules", atomically: false, encoding: .utf8)
                symlink("..\(version)", folder.path("..new"))
                #expect(rename(folder.path("..new"), folder.path("..data")) == 0)
            }
            try write("1", victims[0].selection.joined(separator: " "))
            symlink("..data/rules", folder.path("rules"))
            let (child, _) = try start(["--every", "1", "--config", folder.path("rules")])
            #expect(child.errors.line(until: Deadline(.seconds(10)))?.contains("keepalive off") == true)
            try write("2", victims[1].selection.joined(separator: " "))
            #expect(try waitForKeepalive(victims[1], .seconds(20)))
            #expect(child.errors.line(until: Deadline(.seconds(10)))?.contains("keepalive off") == true)
            try write("3", "--porrt 1")
            #expect(child.errors.line(until: Deadline(.seconds(20)))?.contains("line 1: ") == true)
            // Another round or two, which tell nothing.
            usleep(2_500_000)
            let plain = folder.path("plain")
            try victims[2].selection.joined(separator: " ").write(toFile: plain, atomically: false, encoding: .utf8)
            #expect(rename(plain, folder.path("rules")) == 0)
            #expect(try waitForKeepalive(victims[2], .seconds(20)))
            let end = stop(child)
            #expect(end.status == 0 && end.lines.allSatisfy { $0.contains("keepalive off") })
        }

        @Test func `between two rounds another run gets the lock`() throws {
            let victim = try Victim()
            let (child, _) = try start(["--every", "1h"] + victim.selection)
            let inject = ["inject", "--lock", folder.path("w.lock")] + victim.selection
            #expect(try Program.sockalive(inject).status == 0)
            #expect(stop(child).status == 0)
        }

        @Test func `while another run holds the lock, a watch waits in silence`() throws {
            let victim = try Victim()
            let holder = try holdLock()
            let (child, manager) = try start(["--every", "1"] + victim.selection)
            var skipped = manager.message(until: Deadline(.seconds(20)))
            while skipped == "WATCHDOG=1" { skipped = manager.message(until: Deadline(.seconds(20))) }
            #expect(skipped == "WATCHDOG=1\nSTATUS=another run holds the lock")
            #expect(try victim.keepalive() == [.untouched])
            close(holder)
            #expect(try waitForKeepalive(victim, .seconds(20)))
            let end = stop(child)
            #expect(end.status == 0)
            #expect(end.lines.count == 1 && end.lines.allSatisfy { $0.contains("keepalive off → 600/60/50") })
        }

        @Test func `a round holds the lock`() throws {
            let victim = try Victim()
            let lock = ["--lock", folder.path("w.lock")] + victim.selection
            // Its standard error is full, so the round blocks when it reports the change.
            let full = ["sh", "-c", "head -c 65536 /dev/zero >&2; exec \"$@\"", "sh"]
            let child = try Child(full + [Program.path("sockalive"), "watch", "--every", "1h"] + lock)
            #expect(try waitForKeepalive(victim, .seconds(10)))
            let inject = try Program.sockalive(["inject"] + lock)
            #expect(inject.status == 75)
            #expect(inject.errorLines.count == 1)
            #expect(stop(child).status == 0)
        }

        private func holdLock() throws -> Int32 {
            let file = open(folder.path("w.lock"), O_RDONLY | O_CREAT | O_CLOEXEC, 0o600)
            try #require(file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0)
            return file
        }

        @Test func `a lock file that cannot be opened ends it at once`() throws {
            let link = folder.path("link")
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: folder.path("elsewhere"))
            let program = try Program.sockalive(["watch", "--lock", link, "--pid", "2147483647"])
            #expect(program.status == 64)
            #expect(program.errorLines.count == 1 && program.errors.contains("cannot be opened"))
        }

        @Test func `a lasting condition is due after a while and then hourly, and a new one again`() {
            var messages = MessageThrottle(delay: 60)
            let rounds = stride(from: 100, through: 100 + 2 * 3600, by: 5)
            let times = rounds.filter { !messages.due(["x"], now: $0).isEmpty }
            #expect(times == [160, 3760])
            #expect(messages.due([], now: 8000).isEmpty)
            #expect(messages.due(["x"], now: 8001).isEmpty)
            #expect(messages.due(["x"], now: 8061) == ["x"])
        }

        @Test func `a clock that goes back silences nothing`() {
            var messages = MessageThrottle(delay: 60)
            #expect(messages.due(["x"], now: 9000).isEmpty && messages.due(["x"], now: 9060) == ["x"])
            let times = stride(from: 100, through: 100 + 3600 + 60, by: 5).filter {
                !messages.due(["x"], now: $0).isEmpty
            }
            #expect(times == [160, 3760])
            var atOnce = MessageThrottle()
            #expect(atOnce.due(["x"], now: 9000) == ["x"])
            #expect(atOnce.due(["x"], now: 100) == ["x"])
        }

        @Test func `the watchdog gets messages between two rounds`() throws {
            let victim = try Victim()
            let (child, manager) = try start(
                ["--every", "1h"] + victim.selection, environment: ["WATCHDOG_USEC": "400000"])
            for _ in 1...3 { #expect(manager.message(until: Deadline(.seconds(20)))?.hasPrefix("WATCHDOG=1") == true) }
            #expect(stop(child).status == 0)
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `a failure is reported once in many rounds`() throws {
            let victim = try Victim()
            let tracer = try Child([TestProgram.path("hold-traced"), "\(victim.pid)"])
            _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
            let (child, manager) = try start(
                ["--every", "1", "--method", "ptrace", "--metrics", folder.path("none/x.prom")] + victim.selection)
            for _ in 1...3 { _ = manager.message(until: Deadline(.seconds(20))) }
            let end = stop(child)
            #expect(end.status == 0)
            #expect(end.lines.count == 2, "\(end.lines)")
            #expect(end.lines.count { $0.contains("traced by") } == 1)
            #expect(end.lines.count { $0.contains("metrics file") } == 1)
        }

        @Test(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "a /dev/log of its own takes root"))
        func `closed streams and an empty environment are enough, and the log has the change`() throws {
            let victim = try Victim()
            let log = try PrivateLog()
            let closed = log.launcher + ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"]
            let metrics = folder.path("x.prom")
            let (child, _) = try start(
                ["--every", "1h", "--syslog", "--metrics", metrics] + victim.selection, launcher: closed)
            #expect(try victim.keepalive() == [.forOneHour])
            #expect(log.lines().count { $0.contains("event=set") } == 1)
            let text = try String(contentsOfFile: metrics, encoding: .utf8)
            #expect(text.contains(/(?m)^sockalive_protected\{rule=".+"\} 1$/))
            kill(child.pid, SIGTERM)
            #expect(child.wait() == 0)
        }

        @Test(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "a /dev/log of its own takes root"))
        func `a restarted logger misses nothing, and a missing one is reported once`() throws {
            let name = "w\(UInt32.random(in: 0...UInt32.max))"
            let first = try Victim { $0.program = name }
            let log = try PrivateLog()
            let (child, _) = try start(
                ["--process", name, "--any-port", "--every", "1", "--syslog"], launcher: log.launcher)
            #expect(log.lines().count == 1)
            log.restart()
            let second = try Victim { $0.program = name }
            #expect(try waitForKeepalive(second, .seconds(20)))
            let deadline = Deadline(.seconds(20))
            var lines = log.lines()
            while lines.isEmpty, deadline.millisecondsLeft > 0 { lines = log.lines() }
            #expect(lines.count == 1 && lines.allSatisfy { $0.contains("pid=\(second.pid) ") })
            log.stop()
            let third = try Victim { $0.program = name }
            #expect(try waitForKeepalive(third, .seconds(20)))
            let end = stop(child)
            #expect(end.status == 0)
            #expect(end.lines.count { $0.contains("/dev/log") } == 1, "\(end.lines)")
            _ = first
        }

        @Test(.enabled(if: Machine.injectsByPtrace && Machine.isRoot && Machine.makesNamespaces, "x86-64, and root"))
        func `a failure is logged as soon as there is a logger, and printed only once`() throws {
            let victim = try Victim()
            let tracer = try Child([TestProgram.path("hold-traced"), "\(victim.pid)"])
            _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
            let log = try PrivateLog()
            log.stop()
            let (child, manager) = try start(
                ["--every", "1", "--syslog", "--method", "ptrace"] + victim.selection, launcher: log.launcher)
            log.restart()
            let deadline = Deadline(.seconds(20))
            var lines = log.lines()
            while lines.isEmpty, deadline.millisecondsLeft > 0 { lines = log.lines() }
            for _ in 1...4 { _ = manager.message(until: Deadline(.seconds(20))) }
            lines += log.lines()
            #expect(lines.count == 1 && lines.allSatisfy { $0.contains("event=failed pid=\(victim.pid) ") })
            let end = stop(child)
            #expect(end.status == 0)
            #expect(end.lines.count { $0.contains("traced by") } == 1)
        }

        @Test(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "another PID namespace takes root"))
        func `a watch that cannot work says so and ends`() throws {
            let program = try Program.sockalive(
                ["watch", "--no-lock", "--pid", "2147483647"], launcher: ["unshare", "--pid", "--fork"])
            #expect(program.status == 69)
            #expect(program.errorLines.count == 1 && program.errors.contains("nsenter"))
        }

        @Test(arguments: [["--require"], ["--json"], ["--every", "0"], ["--every", "x"], ["--dry-run"]])
        func `options that a watch cannot use are rejected`(options: [String]) throws {
            #expect(try Program.sockalive(["watch", "--no-lock", "--pid", "2147483647"] + options).status == 64)
        }
    }
}

/// A listener at NOTIFY_SOCKET. The address is an abstract name, as systemd uses in containers.
private final class ServiceManagerStandIn {
    let address: String
    private let descriptor: Int32

    init() throws {
        let name = "sockalive-test-\(UUID().uuidString)"
        address = "@" + name
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: [0] + Array(name.utf8)) }
        let length = socklen_t(MemoryLayout<sockaddr_un>.offset(of: \.sun_path)! + 1 + name.utf8.count)
        let status = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.bind(descriptor, $0, length) }
        }
        precondition(status == 0)
    }

    deinit {
        close(descriptor)
    }

    func message(until deadline: Deadline) -> String? {
        var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&polled, 1, deadline.millisecondsLeft) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        return count < 0 ? nil : String(decoding: bytes[..<count], as: UTF8.self)
    }
}

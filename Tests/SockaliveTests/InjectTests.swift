import Glibc
import Testing

extension ProcessTests {
    @Suite struct Injecting {
        @Test(arguments: methods, [Victim.Mode.read, .poll, .spin])
        func `a victim echoes, is injected, echoes again, and nothing is left in it`(
            method: String, mode: Victim.Mode
        ) throws {
            let victim = try Victim { $0.mode = mode }
            let before = try ProcessTrace(of: victim.pid)
            #expect(try victim.echoes())

            let report = try Report.of(["inject", "--method", method] + victim.selection)
            let socket = try report.socket
            #expect(socket.action == "set")
            #expect(socket.method == method)
            #expect(socket.before == .init(.untouched))
            #expect(socket.keepalive == .init(.forOneHour))
            #expect(socket.verdict == "protected")
            #expect((socket.pausedMicroseconds > 0) == (method == "ptrace"))
            #expect(report.summary == .init(candidates: 1, set: 1, unchanged: 0, failed: 0, answered: nil, silent: nil))

            #expect(try victim.keepalive() == [.forOneHour])
            #expect(try ProcessTrace(of: victim.pid) == before)
            #expect(before.tracer == "0" && !before.isStopped)
            #expect(try victim.echoes())
            #expect(victim.finish().status == 0)
        }

        @Test(arguments: methods) func `a dry run changes no socket and prints the plan`(method: String) throws {
            let victim = try Victim { $0.sessions = 2 }
            let report = try Report.of(["inject", "--dry-run", "--method", method] + victim.selection)
            #expect(report.dryRun)
            #expect(report.sockets.map(\.action) == ["would_set", "would_set"])
            #expect(report.sockets.allSatisfy { $0.verdict == "unprotected" })
            #expect(report.summary.set == 0)
            #expect(try victim.keepalive() == [.untouched, .untouched])
        }

        @Test(arguments: methods) func `a second run leaves every socket unchanged`(method: String) throws {
            let victim = try Victim { $0.sessions = 3 }
            let inject = ["inject", "--method", method] + victim.selection
            #expect(try Report.of(inject).sockets.map(\.action) == ["set", "set", "set"])
            let report = try Report.of(inject)
            #expect(report.sockets.map(\.action) == ["unchanged", "unchanged", "unchanged"])
            #expect(report.summary.unchanged == 3)
            #expect(try victim.keepalive() == [.forOneHour, .forOneHour, .forOneHour])
        }

        @Test(arguments: methods) func `a protected socket keeps its settings`(method: String) throws {
            let victim = try Victim()
            let inject = ["inject", "--method", method] + victim.selection
            #expect(try Report.of(inject + ["--idle", "300"]).socket.action == "set")
            #expect(try victim.keepalive().first?.idle == 300)
            #expect(try Report.of(inject).socket.action == "unchanged")
            #expect(try victim.keepalive().first?.idle == 300)
        }

        @Test(arguments: methods) func `a keepalive that is too slow is replaced`(method: String) throws {
            let victim = try Victim { $0.keepalive = (7200, 75, 9) }
            let socket = try Report.of(["inject", "--method", method] + victim.selection).socket
            #expect(socket.action == "set")
            #expect(try victim.keepalive() == [.forOneHour])
        }

        @Test(arguments: methods) func `explicit values are set exactly, and only once`(method: String) throws {
            let victim = try Victim { $0.keepalive = (10, 10, 10) }
            let inject =
                ["inject", "--method", method, "--idle", "5m", "--interval", "30s", "--count", "7"] + victim.selection
            #expect(try Report.of(inject).socket.action == "set")
            #expect(try victim.keepalive() == [.init(enabled: true, idle: 300, interval: 30, count: 7)])
            #expect(try Report.of(inject).socket.action == "unchanged")
        }

        @Test(arguments: [
            ("4s", (1, 1, 3)), ("5s", (1, 1, 4)), ("60", (10, 1, 50)), ("15m", (150, 15, 50)), ("1h30m", (900, 90, 50)),
            ("100h", (32767, 6000, 55)),
        ])
        func `the values follow from the firewall's timeout`(timeout: String, values: (Int, Int, Int)) throws {
            let victim = try Victim()
            let report = try Report.of(["inject", "--firewall-timeout", timeout] + victim.selection)
            let expected = SocketKeepalive(enabled: true, idle: values.0, interval: values.1, count: values.2)
            #expect(try victim.keepalive() == [expected])
            #expect(report.wanted?.idle == values.0)
        }

        @Test(arguments: methods) func `off turns keepalive off again`(method: String) throws {
            let victim = try Victim()
            let inject = ["inject", "--method", method] + victim.selection
            _ = try Report.of(inject)
            #expect(try Report.of(inject + ["--off"]).socket.action == "set")
            #expect(try victim.keepalive().map(\.enabled) == [false])
            #expect(try Report.of(inject + ["--off"]).socket.action == "unchanged")
        }

        @Test(arguments: methods) func `a user timeout is set, too`(method: String) throws {
            let victim = try Victim()
            let inject = ["inject", "--method", method, "--user-timeout", "30s"] + victim.selection
            let socket = try Report.of(inject).socket
            #expect(try victim.keepalive().first?.userTimeout == 30_000)
            #expect(socket.keepalive?.userTimeout == 30)
        }

        @Test(arguments: methods) func `a socket of parent and child is set once`(method: String) throws {
            let victim = try Victim { $0.hasChild = true }
            let selection = victim.selection + ["--pid", "\(victim.child)"]
            let report = try Report.of(["inject", "--method", method] + selection)
            #expect(report.summary.set == 1)
            #expect(try report.socket.holders.count == 2)
            #expect(try victim.keepalive() == [.forOneHour])
            #expect(try victim.echoes())
        }

        @Test(arguments: methods, ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
        func `every address family is set`(method: String, address: String) throws {
            let victim = try Victim { $0.address = address }
            _ = try Report.of(["inject", "--method", method] + victim.selection)
            #expect(try victim.keepalive() == [.forOneHour])
        }

        @Test(arguments: methods) func `fifty threads, each asleep on its own session`(method: String) throws {
            let victim = try Victim { $0.sessions = 50 }
            let before = try ProcessTrace(of: victim.pid)
            #expect(try Report.of(["inject", "--method", method] + victim.selection).summary.set == 50)
            #expect(try victim.keepalive() == Array(repeating: .forOneHour, count: 50))
            #expect(try ProcessTrace(of: victim.pid) == before)
            #expect(try victim.echoes())
        }

        @Test(
            .enabled(if: Machine.makesNamespaces, "unshare cannot make a network namespace here"),
            arguments: methods)
        func `a session in another network namespace is set`(method: String) throws {
            let room = try TestNetwork()
            let victim = try Victim { room.holds(&$0) }
            _ = try Report.of(["inject", "--method", method] + victim.selection)
            #expect(try victim.keepalive() == [.forOneHour])
        }

        @Test(arguments: methods) func `a stopped process is set and stays stopped`(method: String) throws {
            let victim = try Victim()
            kill(victim.pid, SIGSTOP)
            let deadline = Deadline(.seconds(10))
            while try !ProcessTrace(of: victim.pid).isStopped && deadline.millisecondsLeft > 0 {}
            _ = try Report.of(["inject", "--method", method] + victim.selection)
            #expect(try victim.keepalive() == [.forOneHour])
            #expect(try ProcessTrace(of: victim.pid).isStopped)
            #expect(try ProcessTrace(of: victim.pid).tracer == "0")
            kill(victim.pid, SIGCONT)
            #expect(try victim.echoes())
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `200 ptrace injections disturb neither the computation nor the echo`() throws {
            let victim = try Victim {
                $0.mode = .spin
                $0.sessions = 10
            }
            let before = try ProcessTrace(of: victim.pid)
            victim.startStream()
            for round in 1...20 {
                let inject = ["inject", "--method", "ptrace", "--idle", "\(round)"] + victim.selection
                #expect(try Report.of(inject).summary.set == 10)
            }
            let stream = try victim.stopStream()
            #expect(stream.sent == stream.received)
            #expect(stream.sent > 200)
            #expect(try victim.keepalive().map(\.idle) == Array(repeating: 20, count: 10))
            #expect(try ProcessTrace(of: victim.pid) == before)

            let end = victim.finish()
            #expect(end.status == 0)
            let sum = try #require(end.lines.first { $0.hasPrefix("sum ") })
            let rounds = sum.split(separator: " ")[1]
            let undisturbed = try Program.run([TestProgram.path("victim-echo"), "compute", "\(rounds)"])
            #expect(sum + "\n" == undisturbed.output)
        }

        @Test(
            .enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"),
            arguments: [Victim.Mode.read, .poll])
        func `50 ptrace injections into a sleeper interrupt no sleep`(mode: Victim.Mode) throws {
            let victim = try Victim {
                $0.mode = mode
                $0.sessions = 5
            }
            for round in 1...10 {
                _ = try Report.of(["inject", "--method", "ptrace", "--idle", "\(round)"] + victim.selection)
            }
            #expect(try victim.echoes())
            // If a read had returned EINTR, the victim would have ended with "failed read".
            let end = victim.finish()
            #expect(end.lines.last == "echoed 160")
            #expect(end.status == 0)
        }
    }
}

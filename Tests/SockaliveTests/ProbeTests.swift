import Glibc
import Testing

extension PeerTests {
    @Suite struct Probing {
        private static let settings: [(Int, Int, Int)?] = [nil, (600, 60, 50), (7200, 3600, 1), (1, 1, 5)]

        @Test(arguments: methods, settings)
        func `a peer answers, the settings are restored, and nothing is left`(
            method: String, keepalive: (Int, Int, Int)?
        ) throws {
            let victim = try Victim { $0.keepalive = keepalive }
            #expect(try victim.echoes())
            let trace = try ProcessTrace(of: victim.pid)
            let before = try victim.keepalive()

            let report = try Report.of(["probe", "--method", method] + victim.selection)
            let socket = try report.socket
            #expect(report.command == "probe")
            #expect(socket.action == "none")
            #expect(socket.method == method)
            #expect(socket.probe?.answered == true)
            #expect(try #require(socket.probe?.milliseconds) < 1000)
            #expect(socket.before == .init(before[0]))
            #expect(socket.keepalive == .init(before[0]))
            #expect(report.summary == .init(candidates: 1, set: 0, unchanged: 0, failed: 0, answered: 1, silent: 0))

            #expect(try victim.keepalive() == before)
            #expect(try ProcessTrace(of: victim.pid) == trace)
            #expect(try victim.echoes())
            #expect(victim.finish().status == 0)
        }

        @Test(arguments: methods) func `an injection can probe its result`(method: String) throws {
            let victim = try Victim { $0.sessions = 3 }
            let report = try Report.of(["inject", "--probe", "--method", method] + victim.selection)
            #expect(report.sockets.map(\.action) == ["set", "set", "set"])
            #expect(report.sockets.allSatisfy { $0.probe?.answered == true && $0.verdict == "protected" })
            #expect(report.summary.answered == 3)
            #expect(try victim.keepalive() == [.forOneHour, .forOneHour, .forOneHour])
            let off = try Report.of(["inject", "--off", "--probe", "--method", method] + victim.selection)
            #expect(off.summary.answered == 3)
            #expect(try victim.keepalive().allSatisfy { !$0.enabled })
        }

        @Test(arguments: methods) func `data in flight is answered by its acknowledgement`(method: String) throws {
            let victim = try Victim { $0.sessions = 3 }
            victim.startStream()
            let report = try Report.of(["probe", "--method", method] + victim.selection)
            #expect(report.summary.answered == 3)
            let stream = try victim.stopStream()
            #expect(stream.sent == stream.received)
            #expect(try victim.keepalive().allSatisfy { $0 == .untouched })
        }

        @Test func `a listener has no peer to probe, and is no failure`() throws {
            let victim = try Victim()
            let report = try Report.of(["probe", "--listeners"] + victim.peerSelection)
            let listener = try #require(report.sockets.first { $0.state == "listen" })
            #expect(listener.probe == nil)
            #expect(report.summary.answered == 1)
            #expect(report.summary.silent == 0)
        }

        @Test(arguments: methods) func `a thousand connections are probed at the same time`(method: String) throws {
            let victim = try Victim {
                $0.sessions = 1000
                $0.mode = .poll
            }
            #expect(try victim.echoes())
            let start = ContinuousClock.now
            let report = try Report.of(
                ["probe", "--method", method, "--timeout", "2m"] + victim.selection, deadline: .seconds(150))
            let elapsed = start.duration(to: .now)
            #expect(report.summary.answered == 1000)
            // A new socket can be probed only after a second of idle time. One after the other would take 1000 s.
            #expect(elapsed < .seconds(150), "\(elapsed)")
            #expect(try victim.keepalive().allSatisfy { $0 == .untouched })
        }

        @Test(arguments: methods) func `the next injection repairs a killed probe's settings`(method: String) throws {
            let victim = try Victim { $0.keepalive = (1, 60, 113) }
            for timeout in ["60m", "100h"] {
                let list = ["list", "--check", "--firewall-timeout", timeout] + victim.selection
                #expect(try Report.of(list, status: 1).socket.verdict == "at_risk")
            }
            #expect(try Program.sockalive(["list"] + victim.selection).output.contains("left by a killed probe"))
            #expect(try Report.of(["inject", "--method", method] + victim.selection).socket.action == "set")
            #expect(try victim.keepalive() == [.forOneHour])
        }

        @Test func `the table shows the answer, and the next probe of a protected socket`() throws {
            let victim = try Victim { $0.keepalive = (600, 60, 50) }
            let table = try Program.sockalive(["list"] + victim.selection).output
            #expect(table.contains("protected: next probe in 10m"))
            let probe = try Program.sockalive(["probe", "--no-lock"] + victim.selection)
            #expect(probe.output.contains("ANSWER"))
            #expect(probe.output.contains(/[0-9.]+ ms +protected/))
            #expect(probe.errors == "sockalive: 1 candidate: 1 answered, 0 silent\n")
            #expect(probe.output.split(separator: "\n").allSatisfy { $0.count <= 110 })
            let quiet = try Program.sockalive(["probe", "--no-lock", "--quiet"] + victim.selection)
            #expect(quiet.output + quiet.errors == "")
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "the ptrace method knows x86-64 only"))
        func `connections that could not be asked are counted as failed`() throws {
            let victim = try Victim { $0.sessions = 2 }
            let probe = ["probe", "--no-lock", "--method", "ptrace"] + victim.selection
            do {
                let tracer = try Child([TestProgram.path("hold-traced"), "\(victim.pid)"])
                _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
                let program = try Program.sockalive(probe)
                #expect(program.status == 77)
                #expect(program.errorLines.last == "sockalive: 2 candidates: 0 answered, 0 silent, 2 failed")
                tracer.kill()
            }
            let program = try Program.sockalive(probe)
            #expect(program.errors == "sockalive: 2 candidates: 2 answered, 0 silent\n")
        }

        @Test func `no candidate is no failure, unless one is required`() throws {
            let none = ["probe", "--no-lock", "--pid", "2147483647"]
            #expect(try Program.sockalive(none).status == 0)
            let required = try Program.sockalive(none + ["--require", "--quiet"])
            #expect(required.status == 3)
            #expect(required.errorLines.count == 1)
        }
    }
}

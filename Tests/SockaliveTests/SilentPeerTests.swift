import Foundation
import Glibc
import Testing

extension PeerTests {
    /// Peers that do not answer, because a private network drops all packets.
    @Suite(.enabled(if: Machine.buildsFirewalls, "no namespaces, or ip (iproute2) or nft (nftables) is missing"))
    struct SilentPeers {
        private let room: TestNetwork

        init() throws {
            room = try TestNetwork()
        }

        private func victim(_ configure: (inout Victim.Options) -> Void = { _ in }) throws -> Victim {
            let victim = try Victim {
                room.holds(&$0)
                configure(&$0)
            }
            #expect(try victim.echoes())
            return victim
        }

        /// A probe of victims with silent peers. It is returned when every socket is armed.
        private func waitingProbe(_ arguments: [String], for victim: Victim) throws -> Child {
            let probe = try Child(
                [Program.path("sockalive"), "probe", "--no-lock"] + arguments + victim.selection)
            try wait { try victim.keepalive().allSatisfy { $0.count == 113 } }
            return probe
        }

        private func wait(until condition: () throws -> Bool) throws {
            let deadline = Deadline(.seconds(10))
            while try !condition() {
                guard deadline.millisecondsLeft > 0 else {
                    Issue.record("it did not come about in time")
                    return
                }
            }
        }

        /// Whether a process of that group is there that is no zombie (proc_pid_stat(5)).
        private func isAlive(group: pid_t) throws -> Bool {
            try FileManager.default.contentsOfDirectory(atPath: "/proc").contains { name in
                guard Int32(name) != nil, let text = try? String(contentsOfFile: "/proc/\(name)/stat", encoding: .utf8),
                    let end = text.lastIndex(of: ")")
                else { return false }
                let fields = text[end...].dropFirst(2).split(separator: " ")
                return fields.count > 2 && fields[0] != "Z" && fields[2] == "\(group)"
            }
        }

        @Test(arguments: methods) func `silence is reported, the settings are restored`(method: String) throws {
            let victim = try victim { $0.sessions = 2 }
            try room.fallSilent()
            let probe = ["probe", "--method", method, "--wait", "1s"] + victim.selection
            let report = try Report.of(probe, status: 1)
            #expect(report.sockets.allSatisfy { $0.probe?.answered == false && $0.probe?.milliseconds == nil })
            #expect(report.summary.silent == 2)
            #expect(report.summary.failed == 0)
            #expect(try victim.keepalive() == [.untouched, .untouched])
            let program = try Program.sockalive(probe + ["--no-lock", "--quiet"])
            #expect(program.output == "")
            #expect(program.errorLines.count == 2)
            #expect(zip(program.errorLines, victim.sessions).allSatisfy { $0.contains(":\($1.localPort) ") })
            try room.speakAgain()
            #expect(try victim.echoes())
        }

        /// Its peer, or a firewall, answers the probe with a reset: that is a failure, and counted once.
        @Test func `a connection that is reset by the probe is counted as failed and not as silent`() throws {
            let victim = try victim { $0.sessions = 2 }
            try room.reset()
            // The end that does not read does not notice, and keeps its sockets.
            let program = try Program.sockalive(["probe", "--no-lock"] + victim.peerSelection)
            #expect(program.status == 1)
            #expect(program.errors.contains("answered the probe with a reset"))
            #expect(program.errorLines.last == "sockalive: 2 candidates: 0 answered, 0 silent, 2 failed")
        }

        @Test func `an injection sets a socket and reports its silent peer`() throws {
            let victim = try victim()
            try room.fallSilent()
            let inject = ["inject", "--probe", "--wait", "1s"] + victim.selection
            let socket = try Report.of(inject, status: 1).socket
            #expect(socket.action == "set")
            #expect(socket.probe?.answered == false)
            #expect(try victim.keepalive() == [.forOneHour])
        }

        @Test(arguments: methods, [SIGINT, SIGTERM, SIGHUP])
        func `a signal first restores all settings`(method: String, signal: Int32) throws {
            let victim = try victim { $0.sessions = 5 }
            try room.fallSilent()
            let probe = try waitingProbe(["--method", method, "--timeout", "60s", "--wait", "60s"], for: victim)
            kill(probe.pid, signal)
            #expect(probe.wait() == 1)
            #expect(try victim.keepalive() == Array(repeating: .untouched, count: 5))
        }

        @Test(arguments: methods) func `the time limit first restores all settings`(method: String) throws {
            let victim = try victim { $0.sessions = 5 }
            try room.fallSilent()
            let start = ContinuousClock.now
            let report = try Report.of(
                ["probe", "--method", method, "--timeout", "2s", "--wait", "60s"] + victim.selection, status: 1)
            #expect(start.duration(to: .now) < .seconds(20))
            #expect(report.sockets.allSatisfy { $0.error?.code == "ETIMEDOUT" && $0.probe == nil })
            #expect(try victim.keepalive() == Array(repeating: .untouched, count: 5))
        }

        @Test(arguments: methods) func `an answer restores its socket while others are silent`(method: String) throws {
            let silent = try victim()
            try room.fallSilent()
            let alive = try Victim()
            #expect(try alive.echoes())
            let probe = try waitingProbe(
                ["--method", method, "--timeout", "60s", "--wait", "60s"] + alive.selection, for: silent)
            try wait { try alive.keepalive() == [.untouched] }
            #expect(try silent.keepalive().first?.count == 113)
            kill(probe.pid, SIGTERM)
            _ = probe.wait()
            #expect(try silent.keepalive() == [.untouched])
        }

        @Test(arguments: methods) func `a waiting probe holds no descriptor and no thread`(method: String) throws {
            let victim = try victim()
            try room.fallSilent()
            let probe = try waitingProbe(["--method", method, "--timeout", "60s", "--wait", "60s"], for: victim)
            let socket = try Report.of(["list"] + victim.selection).socket
            for _ in 0..<50 {
                let folder = "/proc/\(probe.pid)/fd"
                let held = try FileManager.default.contentsOfDirectory(atPath: folder).filter {
                    (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)"))
                        == "socket:[\(socket.inode)]"
                }
                // A read may be in progress.
                if held.isEmpty, try ProcessTrace(of: victim.pid).tracer == "0" { return }
            }
            Issue.record("it holds the socket or a thread all the time")
        }

        private func filled() throws -> Victim {
            try Victim {
                room.holds(&$0)
                $0.fillsQueue = true
                $0.keepalive = (600, 60, 50)
            }
        }

        private static let kept = SocketKeepalive(enabled: true, idle: 600, interval: 60, count: 50)

        /// The peer's window is closed: no keepalive probe leaves, and zero-window probes come further and further apart.
        @Test(arguments: methods) func `a peer that lives and does not read has answered`(method: String) throws {
            let victim = try filled()
            let probe = ["probe", "--method", method] + victim.selection
            let soon = try Report.of(probe).socket
            #expect(soon.probe?.answered == true)
            #expect(try #require(soon.probe?.milliseconds) < 1000)
            #expect(try Report.of(["inject", "--probe", "--method", method] + victim.selection).summary.answered == 1)
            // Soon the next zero-window probe is further away than this run may take: the last one counts.
            try wait { try waitOfWindow(victim) > 4 }
            let late = try Report.of(probe + ["--wait", "1s", "--timeout", "2s"]).socket
            #expect(late.probe?.answered == true && late.probe?.milliseconds == nil && late.error == nil)
            let table = try Program.sockalive(probe + ["--no-lock", "--timeout", "2s"])
            #expect(table.output.contains(/[0-9]+s ago +protected/))
            #expect(table.errors == "sockalive: 1 candidate: 1 answered, 0 silent\n")
            #expect(try victim.keepalive() == [Self.kept])
        }

        @Test(arguments: methods) func `a peer that does not read and whose path is cut is silent`(method: String)
            throws
        {
            let victim = try filled()
            try wait { try waitOfWindow(victim) > 0.6 }
            try room.fallSilent()
            let probe = ["probe", "--method", method] + victim.selection
            // In a wait, and then with zero-window probes that had no answer.
            for options in [[], ["--wait", "1s"]] {
                let report = try Report.of(probe + options, status: 1)
                #expect(try report.socket.probe?.answered == false)
                #expect(report.summary.silent == 1 && report.summary.failed == 0)
            }
            #expect(try victim.keepalive() == [Self.kept])
            // The next zero-window probe may be 20 s away.
            try room.speakAgain()
            let report = try Report.of(probe + ["--timeout", "60s"])
            #expect(report.summary.answered == 1)
        }

        @Test(arguments: methods) func `data in flight on a cut path is silence, and on a mended one an answer`(
            method: String
        ) throws {
            let victim = try victim { $0.sessions = 2 }
            try room.fallSilent()
            try victim.peerSendsInVain()
            let probe = ["probe", "--method", method] + victim.peerSelection
            let report = try Report.of(probe + ["--wait", "1s"], status: 1)
            #expect(report.summary.silent == 2 && report.summary.failed == 0)
            try room.speakAgain()
            // The next retransmission may be some seconds away.
            #expect(try Report.of(probe).summary.answered == 2)
        }

        @Test func `while data waits no keepalive probe is announced, and no protection that is none`() throws {
            let victim = try filled()
            func list(_ timeout: String) throws -> (Report.Socket, String) {
                let list = ["list", "--firewall-timeout", timeout] + victim.selection
                return (try Report.of(list).socket, try Program.sockalive(list).output)
            }
            for source in ["diag", "procfs"] {
                let socket = try Report.of(["list", "--source", source] + victim.selection).socket
                #expect(socket.verdict == "protected")
                #expect(socket.nextProbeSeconds == nil)
            }
            #expect(try list("1h").1.contains("protected: window probe in "))
            _ = try Report.of(["inject", "--firewall-timeout", "6s"] + victim.selection)
            try wait { try waitOfWindow(victim) > 2.5 }
            let (socket, text) = try list("6s")
            #expect(socket.keepalive == .init(enabled: true, idle: 1, interval: 1, count: 5, userTimeout: 0))
            #expect(socket.verdict == "at_risk")
            #expect(text.contains("at risk: window probe in "))
        }

        /// Seconds between the last zero-window probe and the next, as ss shows them.
        private func waitOfWindow(_ victim: Victim) throws -> Double {
            let socket = try #require(victim.sessions.first)
            let lines = try room.run(["ss", "-Htino", "sport = :\(socket.localPort)"])
            let timer = lines.firstMatch(of: /timer:\(persist,(?:(\d+)sec|(?:(\d+)\.)?(\d+)ms)/)
            let ack = lines.firstMatch(of: /lastack:(\d+)/).flatMap { Double($0.1) } ?? 0
            guard let timer else { return 0 }
            let seconds = [timer.1, timer.2].compactMap { $0.flatMap { Double($0) } }.reduce(0, +)
            return seconds + (timer.3.flatMap { Double($0) } ?? 0) / 1000 + ack / 1000
        }

        /// One of its own probes is unanswered, and the next one would end the connection.
        @Test(arguments: methods, [(2, 60, 1), (2, 60, 9)])
        func `a probe does not end a connection that its own keepalive has not given up`(
            method: String, keepalive: (Int, Int, Int)
        ) throws {
            let victim = try victim { $0.keepalive = keepalive }
            try room.fallSilent()
            try wait { try Report.of(["list"] + victim.selection).socket.idleSeconds ?? 0 > 2.5 }
            let probe = ["probe", "--method", method, "--wait", "1s"] + victim.selection
            #expect(try Report.of(probe, status: 1).socket.probe?.answered == false)
            #expect(try Report.of(probe, status: 1).socket.error == nil)
            let expected = SocketKeepalive(
                enabled: true, idle: keepalive.0, interval: keepalive.1, count: keepalive.2)
            #expect(try victim.keepalive() == [expected])
            try room.speakAgain()
            #expect(try victim.echoes())
        }

        @Test(arguments: methods, [nil, (600, 60, 50), (600, 61, 49)] as [(Int, Int, Int)?])
        func `after a kill at any moment, the next injection repairs the settings`(
            method: String, keepalive: (Int, Int, Int)?
        ) throws {
            let victim = try victim {
                $0.sessions = 40
                $0.mode = .poll
                $0.keepalive = keepalive
            }
            // A complete probe of peers that answer. The kill may come at any time of it.
            let start = ContinuousClock.now
            _ = try Report.of(["probe", "--method", method] + victim.selection)
            let length = start.duration(to: .now).components
            let microseconds = UInt32(length.seconds) * 1_000_000 + UInt32(length.attoseconds / 1_000_000_000_000)
            var leftovers = 0
            for round in 0..<10 {
                if round == 5 { try room.fallSilent() }
                let before = try victim.keepalive()
                // A process group of its own: the worker ends soon after its parent, and not in the same moment.
                let probe = try Child(
                    ["setsid", Program.path("sockalive"), "probe", "--no-lock", "--method", method] + victim.selection)
                usleep(.random(in: 0...microseconds))
                probe.kill()
                try wait { try !isAlive(group: probe.pid) }
                let left = try victim.keepalive()
                leftovers += zip(left, before).count { $0 != $1 }
                #expect(zip(left, before).allSatisfy { $0 == $1 || $0.count == 113 })
                #expect(try ProcessTrace(of: victim.pid).tracer == "0")
                _ = try Report.of(["inject"] + victim.selection)
                // A socket that had its own keepalive, and is unchanged, is protected and stays as it is.
                let expected = left.map { $0.enabled && $0.count != 113 ? $0 : .forOneHour }
                #expect(try victim.keepalive() == expected)
                if keepalive == nil { _ = try Report.of(["inject", "--off"] + victim.selection) }
            }
            #expect(leftovers > 0)
            try room.speakAgain()
            #expect(try victim.echoes())
        }
    }
}

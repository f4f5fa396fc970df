import Foundation
import Testing

extension ProcessTests {
    /// Connections of which one direction is closed: FIN_WAIT2 at the end that closed it, CLOSE_WAIT at the other.
    @Suite struct HalfClosed {
        /// The victim's end and the peer's.
        private func ends(_ victim: Victim) -> [String] { both(victim) + ["--half-closed"] }

        private func both(_ victim: Victim) -> [String] { victim.selection + ["--pid", "\(victim.peerPID)"] }

        private func halfClosedVictim() throws -> Victim {
            let victim = try Victim { $0.isHalfClosed = true }
            // Until the peer's ACK the victim is in FIN_WAIT1.
            let deadline = Deadline(.seconds(10))
            while try Report.of(["list"] + ends(victim)).sockets.count < 2, deadline.millisecondsLeft > 0 {}
            return victim
        }

        @Test(arguments: SourceNames.all) func `both ends are shown where they are asked for`(source: String) throws {
            let victim = try halfClosedVictim()
            let list = ["list", "--source", source] + both(victim)
            #expect(try Report.of(list).sockets.isEmpty)
            let sockets = try Report.of(list + ["--half-closed"]).sockets
            #expect(Set(sockets.map(\.state)) == ["fin_wait2", "close_wait"])
            #expect(sockets.first { $0.pid == victim.pid }?.state == "fin_wait2")
            #expect(try Report.of(list + ["--half-closed", "--remote", "10.0.0.0/8"]).sockets.isEmpty)
            #expect(sockets.allSatisfy { $0.verdict == "unprotected" && $0.keepalive == .init(.untouched) })
            #expect(sockets.allSatisfy { ($0.idleSeconds ?? .infinity) < 60 && $0.nextProbeSeconds == nil })
            let table = try Program.sockalive(list + ["--half-closed"]).output
            #expect(table.contains("127.0.0.1:\(victim.port) (fin_wait2)  "))
            #expect(table.contains("127.0.0.1:\(victim.sessions[0].localPort) (close_wait)  "))
            #expect(table.components(separatedBy: "unprotected: dropped in ").count == 3)
        }

        @Test(arguments: methods) func `keepalive is set, and its probes leave and are answered`(method: String) throws
        {
            let victim = try halfClosedVictim()
            let inject = ["inject", "--method", method, "--firewall-timeout", "6s"] + ends(victim)
            let sockets = try Report.of(inject).sockets
            #expect(sockets.count == 2 && sockets.allSatisfy { $0.action == "set" && $0.verdict == "protected" })
            #expect(sockets.allSatisfy { ($0.nextProbeSeconds ?? .infinity) <= 1 })
            #expect(try victim.keepalive() == [.init(enabled: true, idle: 1, interval: 1, count: 5)])
            // Each probe's answer ends an idle time; without them it would be 4 s.
            Thread.sleep(forTimeInterval: 4)
            let later = try Report.of(["list", "--firewall-timeout", "6s"] + ends(victim)).sockets
            #expect(later.allSatisfy { ($0.idleSeconds ?? .infinity) < 2.5 && $0.verdict == "protected" })
            #expect(Set(later.map(\.state)) == ["fin_wait2", "close_wait"])
        }

        @Test(arguments: methods) func `each end answers a probe, and has its settings back`(method: String) throws {
            let victim = try halfClosedVictim()
            let sockets = try Report.of(["probe", "--method", method] + ends(victim)).sockets
            #expect(sockets.count == 2 && sockets.allSatisfy { $0.probe?.answered == true })
            #expect(try victim.keepalive() == [.untouched])
        }

        @Test func `an idle time beyond the timeout has expired`() throws {
            let victim = try halfClosedVictim()
            Thread.sleep(forTimeInterval: 4.2)
            let sockets = try Report.of(["list", "--firewall-timeout", "4s"] + ends(victim)).sockets
            #expect(sockets.count == 2 && sockets.allSatisfy { $0.verdict == "expired" })
        }

        @Test(.enabled(if: Machine.isRoot, "only root may run sockalive as another user"))
        func `out of reach, its state and its timer are known`() throws {
            let victim = try Victim {
                $0.isHalfClosed = true
                $0.sessions = 2
                $0.hasOrphan = true
            }
            let deadline = Deadline(.seconds(10))
            while try Report.of(["list"] + ends(victim)).sockets.count < 3, deadline.millisecondsLeft > 0 {}
            for source in SourceNames.all {
                let list = ["list", "--pid", "\(victim.pid)", "--port", "\(victim.port)", "--half-closed"]
                let report = try Report.of(
                    list + ["--source", source], launcher: Conditions.asNobody, status: 77)
                // The other end of each has the same user. The victim's second one, closed, is nobody's.
                let expected = ["close_wait", "close_wait", "fin_wait2"]
                #expect(report.sockets.map(\.state).sorted() == expected)
                #expect(report.sockets.allSatisfy { $0.verdict == "unprotected" })
            }
        }

        @Test func `a rule may mean them, and no other rule of the file does`() throws {
            let (established, closed) = (try Victim(), try halfClosedVictim())
            let folder = try TemporaryFolder()
            let rules = "\(both(established).joined(separator: " ")) --pid \(closed.pid) --port \(closed.port)\n"
            func report(_ more: String) throws -> Report {
                try (rules + more).write(toFile: folder.path("rules"), atomically: true, encoding: .utf8)
                return try Report.of(["list", "--config", folder.path("rules")])
            }
            #expect(try report("").sockets.allSatisfy { $0.state == "established" && $0.firewallTimeout == 3600 })
            let sockets = try report("--pid \(closed.pid) --any-port --half-closed --firewall-timeout 10m\n").sockets
            #expect(sockets.filter { $0.pid == closed.pid }.map(\.firewallTimeout) == [600])
            // The union of the rules finds the peer's end, which no rule means.
            #expect(!sockets.contains { $0.state == "close_wait" })
        }

        @Test func `a watch treats what is half closed, too`() throws {
            let victim = try halfClosedVictim()
            let watch = try Child([Program.path("sockalive"), "watch", "--no-lock", "--every", "1s"] + ends(victim))
            let deadline = Deadline(.seconds(20))
            while try victim.keepalive() != [.forOneHour], deadline.millisecondsLeft > 0 {}
            #expect(try victim.keepalive() == [.forOneHour])
            watch.kill()
        }

        @Test func `what was looked for is said`() throws {
            let program = try Program.sockalive(["list", "--pid", "2147483647", "--half-closed", "--listeners"])
            #expect(program.errors.contains("established or half-closed or listening"))
        }
    }
}

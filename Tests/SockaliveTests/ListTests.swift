import Foundation
import Testing

extension ProcessTests {
    @Suite struct Listing {
        @Test func `a session is shown with all known values`() throws {
            let victim = try Victim()
            let report = try Report.of(["list"] + victim.selection)
            #expect(report.command == "list")
            #expect(!report.dryRun)
            #expect(report.firewallTimeout == 3600)
            #expect(report.wanted == .init(enabled: true, idle: 600, interval: 60, count: 50, userTimeout: nil))

            let socket = try report.socket
            #expect(socket.pid == victim.pid)
            #expect(socket.process == "beremote")
            #expect(socket.exe == victim.executable)
            #expect(socket.uid == (Machine.isRoot ? 0 : socket.uid))
            #expect(socket.fd == victim.sessions[0].descriptor)
            #expect(socket.holders == [.init(pid: victim.pid, fd: victim.sessions[0].descriptor)])
            #expect(socket.family == "ipv4")
            #expect(socket.state == "established")
            #expect(socket.local == .init(address: "127.0.0.1", port: victim.sessions[0].localPort))
            #expect(socket.remote == .init(address: "127.0.0.1", port: victim.port))
            #expect(socket.keepalive == .init(.untouched))
            #expect(socket.verdict == "unprotected")
            #expect(socket.action == "none")
            #expect(socket.error == nil)
            #expect(report.summary == .init(candidates: 1, set: 0, unchanged: 0, failed: 0, answered: nil, silent: nil))
        }

        @Test(arguments: methods) func `listing changes no socket`(method: String) throws {
            let victim = try Victim { $0.sessions = 3 }
            _ = try Report.of(["list", "--method", method] + victim.selection)
            #expect(try victim.keepalive() == Array(repeating: .untouched, count: 3))
            #expect(try victim.echoes())
        }

        @Test func `an IPv6 session is found`() throws {
            let victim = try Victim { $0.address = "::1" }
            let socket = try Report.of(["list"] + victim.selection).socket
            #expect(socket.family == "ipv6")
            #expect(socket.remote == .init(address: "::1", port: victim.port))
        }

        @Test func `a mapped address is shown as the IPv4 address that it carries`() throws {
            let victim = try Victim { $0.address = "::ffff:127.0.0.1" }
            let socket = try Report.of(["list", "--remote", "127.0.0.0/8"] + victim.selection).socket
            #expect(socket.family == "ipv6")
            #expect(socket.local == .init(address: "127.0.0.1", port: victim.sessions[0].localPort))
            #expect(socket.remote == .init(address: "127.0.0.1", port: victim.port))
        }

        @Test func `a socket of parent and child is one socket`() throws {
            let victim = try Victim { $0.hasChild = true }
            let descriptor = victim.sessions[0].descriptor
            let selection = victim.selection + ["--pid", "\(victim.child)"]
            let socket = try Report.of(["list"] + selection).socket
            #expect(
                Set(socket.holders) == [
                    .init(pid: victim.pid, fd: descriptor), .init(pid: victim.child, fd: descriptor),
                ])
        }

        @Test func `every session of many threads is found once`() throws {
            let victim = try Victim { $0.sessions = 50 }
            let report = try Report.of(["list"] + victim.selection)
            #expect(Set(report.sockets.map(\.local.port)) == Set(victim.sessions.map(\.localPort)))
            #expect(report.sockets.count == 50)
        }

        @Test(.enabled(if: Machine.makesNamespaces, "unshare cannot make a network namespace here"))
        func `a session in another network namespace is found`() throws {
            let room = try TestNetwork()
            let here = try Victim()
            let there = try Victim { room.holds(&$0) }
            let selection = here.selection + there.selection
            let sockets = try Report.of(["list"] + selection).sockets
            #expect(Set(sockets.map(\.pid)) == [here.pid, there.pid])
            #expect(Set(sockets.map(\.netns)).count == 2)
            #expect(sockets.allSatisfy { $0.keepalive != nil })
        }

        @Test func `idle time grows in silence, and an echo resets it`() throws {
            let victim = try Victim()
            #expect(try victim.echoes())
            let first = try #require(try Report.of(["list"] + victim.selection).socket.idleSeconds)
            var later = first
            let deadline = Deadline(.seconds(10))
            while later < first + 0.5 && deadline.millisecondsLeft > 0 {
                later = try #require(try Report.of(["list"] + victim.selection).socket.idleSeconds)
            }
            #expect(later >= first + 0.5)
            #expect(try victim.echoes())
            #expect(try #require(try Report.of(["list"] + victim.selection).socket.idleSeconds) < later)
        }

        @Test(arguments: [
            ("60m", (600, 60, 50), "protected"),
            ("60m", (3479, 60, 9), "protected"),
            ("60m", (3480, 60, 9), "at_risk"),
            ("60m", (7200, 75, 9), "at_risk"),
            ("2h30m", (7200, 75, 9), "protected"),
        ])
        func `a verdict compares the settings with the firewall's timeout`(
            timeout: String, settings: (Int, Int, Int), verdict: String
        ) throws {
            let victim = try Victim { $0.keepalive = settings }
            let list = ["list", "--check", "--firewall-timeout", timeout] + victim.selection
            let socket = try Report.of(list, status: verdict == "protected" ? 0 : 1).socket
            #expect(socket.verdict == verdict)
        }

        @Test func `the table has a line a socket, and its columns fit 100 characters`() throws {
            let victim = try Victim { $0.sessions = 3 }
            let program = try Program.sockalive(["list"] + victim.selection)
            let lines = program.output.split(separator: "\n")
            #expect(program.status == 0)
            #expect(program.errors == "")
            #expect(
                lines.first?.split(separator: " ").map(String.init) == [
                    "PID", "PROCESS", "FD", "LOCAL", "REMOTE", "IDLE", "KEEPALIVE", "VERDICT",
                ])
            #expect(lines.count == 4)
            // The explanation of a verdict may be longer.
            let columns = lines.dropFirst().map { $0.components(separatedBy: ": dropped in ") }
            #expect(columns.allSatisfy { $0.count == 2 && $0[0].hasSuffix("unprotected") && $0[0].count <= 100 })
            #expect(!program.output.contains("\u{1b}"))
        }
    }
}

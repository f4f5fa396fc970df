import Foundation
import Testing

extension ProcessTests {
    /// Processes in other namespaces, seen from this one.
    @Suite(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "root and unshare are needed to live elsewhere"))
    struct Namespaces {
        /// The PIDs of the process in each of its PID namespaces, from this one inwards.
        private func numbers(of pid: Int32) throws -> [Substring] {
            let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
            let line = status.split(separator: "\n").first { $0.hasPrefix("NSpid:") }
            return line?.split(separator: "\t").dropFirst().map { $0 } ?? []
        }

        @Test(arguments: SourceNames.all)
        func `every address family in every namespace is found once, with its addresses`(source: String) throws {
            let room = try TestNetwork()
            let addresses = ["127.0.0.1", "::1", "::ffff:127.0.0.1"]
            let here = try addresses.map { address in try Victim { $0.address = address } }
            let there = try addresses.map { address in
                try Victim {
                    room.holds(&$0)
                    $0.address = address
                    $0.sessions = 2
                }
            }
            let selection = (here + there).flatMap(\.selection) + ["--source", source]
            let sockets = try Report.of(["list"] + selection).sockets
            #expect(sockets.count == 9)
            #expect(Set(sockets.map(\.inode)).count == 9)
            #expect(Set(sockets.map(\.netns)).count == 2)
            for (victim, address) in zip(here + there, addresses + addresses) {
                let shown = address.replacing("::ffff:", with: "")
                let own = sockets.filter { $0.pid == victim.pid }
                #expect(own.count == victim.sessions.count)
                #expect(Set(own.map(\.local.port)) == Set(victim.sessions.map(\.localPort)))
                #expect(own.allSatisfy { $0.local.address == shown && $0.remote.address == shown })
                #expect(own.allSatisfy { $0.remote.port == victim.port && $0.idleSeconds != nil })
                #expect(own.allSatisfy { $0.family == (address == "127.0.0.1" ? "ipv4" : "ipv6") })
            }
        }

        @Test(arguments: methods, SourceNames.all)
        func `a process in all kinds of namespaces is found, shown with its PID here, and set`(
            method: String, source: String
        ) throws {
            let room = try TestNetwork()
            let name = "beremote-inside"
            let victim = try Victim {
                room.holds(&$0)
                $0.program = name
                $0.launcher += ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"]
            }
            #expect(victim.pid == 1)
            let inject = ["inject", "--process", name, "--port", "\(victim.port)", "--method", method]
            let report = try Report.of(inject + ["--source", source])
            let socket = try report.socket
            #expect(try numbers(of: socket.pid) == ["\(socket.pid)", "1"])
            #expect(socket.action == "set")
            #expect(socket.fd == victim.sessions[0].descriptor)
            #expect(socket.local.port == victim.sessions[0].localPort)
            #expect(socket.exe == victim.executable)
        }

        /// Swift's runtime finds no command line without /proc.
        @Test(arguments: ["list", "inject", "doctor", "--version"])
        func `without /proc nothing is done, and the message says so`(command: String) throws {
            let hidden = ["unshare", "--mount", "sh", "-c", #"mount -t tmpfs none /proc && exec "$@""#, "sh"]
            let program = try Program.sockalive([command], launcher: hidden)
            #expect(program.status == 69 && program.output == "")
            #expect(program.errors.hasPrefix("sockalive: /proc cannot be read"))
            #expect(program.errors.split(separator: "\n").count == 1)
        }

        @Test func `the /proc of another PID namespace is refused`() throws {
            // A new PID namespace with the old /proc: its numbers belong to other processes.
            let program = try Program.sockalive(["list"], launcher: ["unshare", "--pid", "--fork"])
            #expect(program.status == 69)
            #expect(program.errors.contains("PID namespace"))
        }
    }

    @Suite struct Sources {
        /// The victim's end, as a user without access to the victim sees it. The peer's end might be taken for the
        /// victim's, because both have the same user.
        private func outOfReach(_ victim: Victim) throws -> Report.Socket {
            let report = try Report.of(["list"] + victim.selection, launcher: Conditions.asNobody, status: 77)
            return try #require(report.sockets.first { $0.local.port == victim.sessions[0].localPort })
        }

        @Test(.enabled(if: Machine.isRoot, "only root may run sockalive as another user"))
        func `a process without access still has idle time and verdict`() throws {
            let victim = try Victim()
            let socket = try outOfReach(victim)
            #expect(socket.fd == nil)
            #expect(socket.keepalive == nil)
            #expect(socket.idleSeconds != nil)
            #expect(socket.verdict == "unprotected")
            #expect(socket.nextProbeSeconds == nil)
            #expect(socket.error?.code == "EACCES")
        }

        @Test(.enabled(if: Machine.isRoot, "only root may run sockalive as another user"))
        func `the next probe of a process without access is known from its timer`() throws {
            let victim = try Victim { $0.keepalive = (600, 60, 50) }
            let socket = try outOfReach(victim)
            #expect(socket.verdict == nil)
            #expect((500...600).contains(try #require(socket.nextProbeSeconds)))
        }

        @Test func `a connection idle for longer than the firewall's timeout has expired`() throws {
            let victim = try Victim { $0.keepalive = (2, 1, 100) }
            let list = ["list", "--firewall-timeout", "4s"] + victim.selection
            #expect(try Report.of(list).socket.verdict == "at_risk")
            let silent = try Victim()
            let deadline = Deadline(.seconds(30))
            var socket = try Report.of(["list", "--firewall-timeout", "4s"] + silent.selection).socket
            #expect(socket.verdict == "unprotected")
            while try #require(socket.idleSeconds) <= 4 && deadline.millisecondsLeft > 0 {
                socket = try Report.of(["list", "--firewall-timeout", "4s"] + silent.selection).socket
            }
            #expect(socket.verdict == "expired")
        }

        @Test(.enabled(if: Machine.isRoot, "only root may enter a network namespace"))
        func `without sock_diag the other source is used, or an error reported if it was required`() throws {
            let victim = try Victim()
            let withoutDiag = Conditions.denying("socket=ENOSYS")
            let socket = try Report.of(["list", "--method", "ptrace"] + victim.selection, launcher: withoutDiag).socket
            #expect(socket.local.port == victim.sessions[0].localPort)
            #expect(socket.idleSeconds != nil)
            let forced = try Program.sockalive(["list", "--source", "diag"] + victim.selection, launcher: withoutDiag)
            #expect(forced.status == 69)
            #expect(forced.errors.contains("tcp_diag"))
            #expect(forced.errorLines.count == 1)
        }
    }
}

enum SourceNames {
    static let all = ["auto", "procfs", "diag"]
}

import Foundation
import Testing

extension ProcessTests {
    @Suite struct Selecting {
        /// The number of the victim's sockets that a selection finds.
        private func count(_ selection: [String], of victim: Victim) throws -> Int {
            try Report.of(["list"] + selection).sockets.filter { $0.pid == victim.pid }.count
        }

        @Test func `a process is found by its whole name only`() throws {
            let victim = try Victim { $0.program = "beremotely" }
            let port = ["--port", "\(victim.port)"]
            #expect(try count(port, of: victim) == 0)
            #expect(try count(["--process", "beremotel"] + port, of: victim) == 0)
            #expect(try count(["--process", "beremotely"] + port, of: victim) == 1)
            #expect(try count(["--process", "other", "--process", "beremotely"] + port, of: victim) == 1)
            #expect(try count(["--any-process"] + port, of: victim) == 1)
        }

        @Test func `a process is found by its executable's name, even with another comm`() throws {
            let victim = try Victim { $0.name = "worker" }
            let port = ["--port", "\(victim.port)"]
            #expect(try count(port, of: victim) == 1)
            #expect(try count(["--process", "worker"] + port, of: victim) == 1)
            #expect(try count(["--process", "work"] + port, of: victim) == 0)
        }

        @Test func `a low descriptor limit is raised, or it is an error`() throws {
            let victim = try Victim()
            let every = ["list", "--any-process", "--port", "\(victim.port)"]
            func limited(_ option: String) throws -> Program {
                try Program.sockalive(every, launcher: ["sh", "-c", "ulimit \(option) 34; exec \"$@\"", "sh"])
            }
            #expect(try limited("-Sn").output.contains("\(victim.pid)"))
            let program = try limited("-n")
            #expect(program.status == 1 && program.output == "")
            #expect(program.errorLines.count == 1 && program.errors.contains("--user"))
        }

        @Test func `a name longer than comm is matched as a whole`() throws {
            let victim = try Victim { $0.program = "backup-exec-remote-agent" }
            let port = ["--port", "\(victim.port)"]
            #expect(try count(["--process", "backup-exec-remote-agent"] + port, of: victim) == 1)
            #expect(try count(["--process", "backup-exec-remote-agents"] + port, of: victim) == 0)
        }

        @Test func `an executable's path is matched exactly`() throws {
            let victim = try Victim()
            let port = ["--port", "\(victim.port)"]
            #expect(try count(["--exe", victim.executable] + port, of: victim) == 1)
            #expect(try count(["--exe", victim.executable + "2"] + port, of: victim) == 0)
            #expect(try count(["--exe", "/usr/bin/true", "--pid", "\(victim.pid)"] + port, of: victim) == 0)
        }

        /// In its own mount namespace, every user can create a path of that name, start the file, and delete it.
        @Test(.enabled(if: Machine.makesNamespaces, "no namespaces may be made here"))
        func `a deleted executable matches only in our mount namespace`() throws {
            for (launcher, found) in [([], 1), (["unshare"] + Machine.privateUser + ["--mount"], 0)] {
                let victim = try Victim { $0.launcher = launcher }
                let selection = ["--exe", victim.executable, "--port", "\(victim.port)"]
                #expect(try count(selection, of: victim) == 1)
                try FileManager.default.removeItem(atPath: victim.executable)
                #expect(try count(selection, of: victim) == found)
            }
        }

        @Test(.enabled(if: Machine.isRoot, "only root may start a process of another user"))
        func `a user is matched by name and by number`() throws {
            let victim = try Victim { $0.launcher = ["setpriv", "--reuid", "2", "--regid", "2", "--clear-groups"] }
            #expect(try count(["--user", "bin"] + victim.selection, of: victim) == 1)
            #expect(try count(["--user", "2"] + victim.selection, of: victim) == 1)
            #expect(try count(["--user", "root"] + victim.selection, of: victim) == 0)
            #expect(try Report.of(["list"] + victim.selection).socket.uid == 2)
        }

        @Test func `a port is matched at either end`() throws {
            let victim = try Victim()
            let pid = ["--pid", "\(victim.pid)"]
            let session = victim.sessions[0]
            #expect(try count(pid, of: victim) == 0)
            #expect(try count(pid + ["--any-port"], of: victim) == 1)
            #expect(try count(pid + ["--port", "\(session.localPort)"], of: victim) == 1)
            #expect(try count(pid + ["--port", "\(victim.port)"], of: victim) == 1)
            #expect(try count(pid + ["--port", "1", "--port", "\(victim.port)"], of: victim) == 1)
        }

        @Test(arguments: [
            ("127.0.0.1", 1), ("127.0.0.1/32", 1), ("127.0.0.0/8", 1), ("0.0.0.0/0", 1),
            ("127.0.0.2", 0), ("10.0.0.0/8", 0), ("::/0", 0),
        ])
        func `a peer is matched by its address`(range: String, found: Int) throws {
            let victim = try Victim()
            #expect(try count(victim.selection + ["--remote", range], of: victim) == found)
        }

        @Test(arguments: [("::1", 1), ("::/0", 1), ("fe80::/10", 0), ("127.0.0.1", 0)])
        func `a peer is matched by its IPv6 address`(range: String, found: Int) throws {
            let victim = try Victim { $0.address = "::1" }
            #expect(try count(victim.selection + ["--remote", range], of: victim) == found)
        }

        @Test(.enabled(if: Machine.makesNamespaces, "unshare cannot make a network namespace here"))
        func `without options the selection is beremote and port 5633`() throws {
            let room = try TestNetwork()
            let agent = try Victim {
                room.holds(&$0)
                $0.port = 5633
            }
            let stranger = try Victim {
                room.holds(&$0)
                $0.program = "stranger"
                $0.port = 5634
            }
            let pids = try Report.of(["list"]).sockets.map(\.pid)
            #expect(pids.contains(agent.pid))
            #expect(!pids.contains(stranger.pid))
        }
    }
}

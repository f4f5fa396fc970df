import Foundation
import Testing

extension ProcessTests {
    /// What may not be read, or is not where it is looked for, is never "none".
    @Suite(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "only root has rights to give up"))
    struct MissingRights {
        /// Root may list `/proc/PID/fd`, and not read its links.
        static let launchers: [[String]] = [
            ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"],
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
            ["unshare", "--user", "--map-root-user"],
        ]

        static let users: [[String]] = [[], Conditions.asNobody]

        private func expectDenied(
            _ command: [String], _ launcher: [String], sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            let lock = command[0] == "list" ? [] : ["--no-lock", "--quiet"]
            let program = try Program.sockalive(command + lock, launcher: launcher)
            #expect(program.status == 77, "\(command) \(program.errors)", sourceLocation: sourceLocation)
            #expect(program.errors.contains("may not be read"), sourceLocation: sourceLocation)
            let report = try Report.of(command, launcher: launcher, status: 77, sourceLocation: sourceLocation)
            let failed = report.sockets.count { $0.error != nil } + report.failedProcesses.count
            #expect(failed > 0 && report.summary.failed == failed, sourceLocation: sourceLocation)
        }

        @Test(arguments: launchers, users)
        func `what may not be read is a failure by every way to select`(
            launcher: [String], user: [String]
        ) throws {
            let name = "agent-with-a-long-name"
            for agent in [
                try Agent(name: name, launcher: user), try Agent("renamed", name: name, launcher: user),
                try Agent("renamed", launcher: user),
            ] {
                let file = URL(fileURLWithPath: agent.executable).lastPathComponent
                for selection in [agent.selection, ["--process", file], ["--exe", agent.executable]] {
                    try expectDenied(["list"] + selection + agent.ports, launcher)
                }
                for method in methods {
                    for command in ["inject", "probe"] {
                        try expectDenied([command, "--method", method] + agent.selection, launcher)
                    }
                }
            }
        }

        @Test func `a process whose namespace has no such connection surely has none`() throws {
            let room = try TestNetwork()
            let agent = try Agent("plain", "0", launcher: room.launcher)
            let program = try Program.sockalive(["list"] + agent.selection, launcher: Self.launchers[0])
            #expect(program.status == 0 && program.errors.contains("no candidate"))
        }

        /// The socket keeps the user who made it.
        @Test func `a process that changed its user may have the connection`() throws {
            let agent = try Agent("setuid", "65534")
            let report = try Report.of(["list"] + agent.selection, launcher: Self.launchers[0], status: 77)
            #expect(report.sockets.isEmpty && report.failedProcesses.map(\.pid) == [agent.pid])
            #expect(report.failedProcesses.first?.error.code == "EACCES")
            #expect(report.failedProcesses.first?.process == "agent")
        }

        /// Since Linux 5.8 each mount of proc has its own options.
        @Test(arguments: ["hidepid=1", "hidepid=2", "hidepid=4", "subset=pid"])
        func `what /proc does not show is a failure`(option: String) throws {
            let agent = try Agent()
            let script = "mount -t proc -o \(option) proc /proc && exec \"$@\""
            let launcher = ["unshare", "--mount", "sh", "-c", script, "sh"] + Conditions.asNobody
            for command in [["list"], ["inject", "--no-lock"], ["inject", "--no-lock", "--quiet"]] {
                for selection in [agent.selection, ["--process", "agent"], ["--exe", agent.executable]] {
                    let program = try Program.sockalive(command + selection + agent.ports, launcher: launcher)
                    #expect(program.status == 77, "\(command) \(selection) \(program.errors)")
                    #expect(option.hasPrefix("subset") || program.errors.contains("hidepid"))
                }
            }
        }

        @Test(arguments: [6, 12]) func `too few open files are an error`(limit: Int) throws {
            let agent = try Agent("plain", "3")
            let limited = ["sh", "-c", "ulimit -n \(limit); exec \"$@\"", "sh"]
            for command in [["list"], ["inject", "--no-lock", "--quiet"], ["probe", "--no-lock"], ["doctor"]] {
                for selection in [agent.selection, ["--process", "agent"], ["--exe", agent.executable]] {
                    let program = try Program.sockalive(command + selection + agent.ports, launcher: limited)
                    #expect(program.status == 1, "\(command) \(selection) \(program.errors)")
                    #expect((program.output + program.errors).contains("ulimit"), "\(program.errors)")
                    #expect(!program.errors.contains("no candidate"))
                }
            }
            let old = ["inject", "--no-lock"] + agent.selection
            let program = try Program.sockalive(old, launcher: limited + Conditions.withoutPidfd)
            #expect(program.status == 1 && program.errors.contains("ulimit") && program.output == "")
        }
    }

    /// A process may hold sockets of several network namespaces.
    @Suite(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "root and unshare are needed to live elsewhere"))
    struct OtherNamespaces {
        @Test(arguments: methods, SourceNames.all)
        func `a connection in another namespace than its process is found and set`(
            method: String, source: String
        ) throws {
            for further in [0, 250] {
                let agent = try Agent("elsewhere", "\(further)")
                let how = ["--method", method, "--source", source]
                let socket = try Report.of(["inject"] + how + agent.selection).socket
                #expect(socket.action == "set" && socket.fd == agent.descriptors[0])
                #expect(socket.netns == UInt64(agent.words[1]))
                #expect(try agent.keepalive([agent.descriptors[0]]) == [.forOneHour])
                let probed = try Report.of(["probe"] + how + agent.selection).socket
                #expect(probed.probe?.answered == true && probed.netns == socket.netns)
            }
        }

        @Test(arguments: methods, SourceNames.all)
        func `twenty such processes are all found`(method: String, source: String) throws {
            let agents = try (0..<20).map { _ in try Agent("elsewhere", "3", name: "many-agents") }
            let list = ["list", "--process", "many-agents", "--method", method, "--source", source]
            let report = try Report.of(list + agents.flatMap(\.ports))
            for agent in agents {
                // Another agent may have the same port in its own namespace.
                let own = agent.own(report).filter { $0.pid == agent.pid }
                #expect(own.map(\.netns) == [UInt64(agent.words[1])] && own.map(\.fd) == [agent.descriptors[0]])
            }
        }

        /// As `ip netns add` makes it.
        @Test(arguments: methods, SourceNames.all)
        func `a connection in a namespace that only a mount keeps is found`(method: String, source: String) throws {
            let script = """
                mount -t tmpfs tmpfs /run && touch /run/blue &&
                unshare --net=/run/blue ip link set lo up && exec "$@"
                """
            let agent = try Agent("pinned", "/run/blue", launcher: ["unshare", "--mount", "sh", "-c", script, "sh"])
            let inside = ["nsenter", "--target", "\(agent.pid)", "--mount"]
            let inject = ["inject", "--method", method, "--source", source] + agent.selection
            let own = agent.own(try Report.of(inject, launcher: inside))
            #expect(own.map(\.action) == ["set"] && own.allSatisfy { $0.netns != nil })
            let descriptor = try #require(own.first?.fd)
            #expect(try agent.keepalive([descriptor]) == [.forOneHour])
        }

        @Test(arguments: ["parent", "child"], SourceNames.all)
        func `of two holders in two namespaces the first is named, at each run`(who: String, source: String) throws {
            // In the namespace of the holder that stays, so that this one is looked at first.
            let earlier = try Agent()
            let agent = try Agent("shared", who)
            let holders = agent.words.map { $0.split(separator: ":").compactMap { Int32($0) } }
            let pids = holders.flatMap { ["--pid", "\($0[0])"] } + earlier.selection
            let first = try #require(holders.min { $0[0] < $1[0] })
            let name =
                first[0] == agent.pid ? (who == "parent" ? "moved" : "agent") : who == "child" ? "moved" : "agent"
            for method in methods {
                for _ in 0..<10 {
                    let list = ["list", "--source", source, "--method", method]
                    let report = try Report.of(list + pids + agent.ports)
                    let socket = try #require(agent.own(report).first)
                    #expect(report.sockets.count == 2)
                    #expect(socket.pid == first[0] && socket.fd == first[1] && socket.process == name)
                    #expect(socket.holders.map { [$0.pid, $0.fd] } == holders.sorted { $0[0] < $1[0] })
                }
            }
        }
    }

    /// Sockets that no descriptor table has, or has in an unusual way.
    @Suite struct UnusualDescriptors {
        private static let makesDirectDescriptors = (try? Agent("ring-direct")) != nil

        @Test(.enabled(if: makesDirectDescriptors, "this kernel makes no socket in an io_uring"))
        func `a direct descriptor of an io_uring is named`() throws {
            let agent = try Agent("ring-direct")
            for command in ["list", "inject", "probe"] {
                for source in SourceNames.all {
                    let report = try Report.of([command, "--source", source] + agent.selection, status: 69)
                    #expect(report.sockets.isEmpty && report.summary.failed == 1)
                    let failed = try #require(report.failedProcesses.first)
                    #expect(failed.pid == agent.pid && failed.process == "agent")
                    #expect(failed.error.message.contains("io_uring") && failed.error.remedy != nil)
                }
            }
            let quiet = try Program.sockalive(["inject", "--quiet", "--no-lock"] + agent.selection)
            #expect(quiet.status == 69 && quiet.errorLines.count == 1)
            // Looked for under another name.
            let other = try Program.sockalive(["list", "--process", "no-such-agent"] + agent.ports)
            #expect(other.status == 0 && other.errors.contains("io_uring of agent (PID \(agent.pid))"))
        }

        @Test(
            .enabled(if: makesDirectDescriptors, "this kernel makes no socket in an io_uring"),
            arguments: ["ring", "ring-empty"])
        func `an io_uring without sockets changes nothing`(ring: String) throws {
            let agent = try Agent(ring)
            for source in SourceNames.all {
                let report = try Report.of(["inject", "--source", source] + agent.selection)
                #expect(try report.socket.fd == agent.descriptors[0])
                #expect(report.failedProcesses.isEmpty && report.summary.failed == 0)
            }
            #expect(try agent.keepalive() == [.forOneHour])
        }

        @Test func `a connection on its way between processes is explained`() throws {
            let agent = try Agent("in-flight")
            let program = try Program.sockalive(["inject", "--no-lock"] + agent.selection)
            #expect(program.status == 0)
            #expect(program.errors.contains("→ 127.0.0.1:\(agent.port) of user \(getuid()) is in no descriptor table"))
            #expect(!program.errors.contains(":\(agent.port) →"))
            let quiet = try Program.sockalive(["inject", "--no-lock", "--quiet"] + agent.selection)
            #expect(quiet.status == 0 && quiet.errors == "")
        }

        @Test(arguments: methods, SourceNames.all)
        func `an O_PATH descriptor is not taken for the connection`(method: String, source: String) throws {
            let agent = try Agent("path")
            let how = ["--method", method, "--source", source]
            let socket = try Report.of(["inject"] + how + agent.selection).socket
            #expect(socket.fd == agent.descriptors[1] && socket.holders.count == 1)
            #expect(try agent.keepalive([agent.descriptors[1]]) == [.forOneHour])
            #expect(try Report.of(["probe"] + how + agent.selection).socket.probe?.answered == true)
        }

        @Test(arguments: ["main-table", "thread-table"], methods)
        func `a number may be another file in another thread's table`(table: String, method: String) throws {
            for source in SourceNames.all {
                let agent = try Agent(table)
                let how = ["--method", method, "--source", source]
                let socket = try Report.of(["inject"] + how + agent.selection).socket
                #expect(socket.action == "set" && socket.fd == agent.descriptors[0])
                #expect(try Report.of(["list"] + how + agent.selection).socket.verdict == "protected")
                if table == "main-table" { #expect(try agent.keepalive() == [.forOneHour]) }
            }
        }

        @Test(arguments: methods) func `a busy program's lasting connections are set, at each run`(method: String)
            throws
        {
            let agent = try Agent("busy")
            for run in 1...20 {
                let report = try Report.of(["inject", "--method", method, "--idle", "\(100 + run)"] + agent.selection)
                #expect(report.summary.failed == 0 && report.sockets.allSatisfy { $0.error == nil })
                #expect(try agent.keepalive().map(\.idle) == [100 + run, 100 + run, 100 + run])
            }
        }

        @Test(arguments: methods) func `a descriptor that moves is found again`(method: String) throws {
            let agent = try Agent("move")
            for run in 1...20 {
                let inject = ["inject", "--method", method, "--idle", "\(100 + run)"] + agent.selection
                #expect(try Report.of(inject).socket.action == "set")
                if run > 5 { continue }
                let probed = try Report.of(["probe", "--method", method] + agent.selection).socket
                #expect(probed.keepalive?.idle == 100 + run && probed.error == nil)
            }
        }

        @Test func `the number of a thread is refused, with its process's`() throws {
            let agent = try Agent("thread")
            let thread = ["--pid", agent.words[1]] + agent.ports
            for command in [["list"], ["inject", "--no-lock"], ["probe", "--no-lock", "--quiet"]] {
                let program = try Program.sockalive(command + thread)
                #expect(program.status == 1 && program.errors.contains("thread"))
                #expect(program.errors.contains("--pid \(agent.pid)"))
            }
            let report = try Report.of(["list"] + thread, status: 1)
            #expect(report.failedProcesses.map(\.process) == ["worker"])
            let doctor = try Program.sockalive(["doctor", "--quiet"] + thread)
            #expect(doctor.status == 1 && doctor.errors.contains("--pid \(agent.pid)"))
            #expect(try DoctorAnswer.of(thread, status: 1).targets.isEmpty)
        }
    }
}

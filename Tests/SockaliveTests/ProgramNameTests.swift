import Foundation
import Testing

extension ProcessTests {
    /// The names that a running program goes by.
    @Suite struct ProgramNames {
        private static let longName = "a-very-long-agent-name"

        /// Whether a selection finds the agent's own end.
        private func finds(_ agent: Agent, _ selection: [String]) throws -> Bool {
            try agent.own(Report.of(["list"] + selection + agent.ports)).map(\.pid) == [agent.pid]
        }

        @Test func `a path leads to its executable through symbolic links`() throws {
            let agent = try Agent(name: Self.longName)
            let folder = try TemporaryFolder()
            let files = FileManager.default
            let real = URL(fileURLWithPath: agent.executable).deletingLastPathComponent().path
            try files.createSymbolicLink(atPath: folder.path("link"), withDestinationPath: real)
            try files.createSymbolicLink(atPath: folder.path("last"), withDestinationPath: agent.executable)
            try files.createSymbolicLink(atPath: folder.path("twice"), withDestinationPath: folder.path("last"))
            try files.createDirectory(atPath: folder.path("sub"), withIntermediateDirectories: false)
            for path in ["link/\(Self.longName)", "last", "twice", "sub/../last", "link/../\(real)/\(Self.longName)"] {
                let full =
                    path.contains("/../\(real)")
                    ? "\(real)/../\(real.split(separator: "/").last!)/\(Self.longName)"
                    : folder.path(path)
                #expect(try finds(agent, ["--exe", full]), "\(full)")
            }
            #expect(try !finds(agent, ["--exe", folder.path("sub")]))
        }

        /// The dynamic loader is the executable then.
        @Test(arguments: [longName, "agent-4711"])
        func `a program that the dynamic loader runs is found by its name`(name: String) throws {
            let loader = try FileManager.default.contentsOfDirectory(atPath: "/lib64").first {
                $0.hasPrefix("ld-linux")
            }
            let agent = try Agent(name: name, launcher: ["/lib64/\(try #require(loader))"])
            #expect(try finds(agent, ["--process", name]))
            #expect(try !finds(agent, ["--process", "another-long-agent-name"]))
        }

        @Test func `an executable that was moved or replaced is found by its name, and explained by its path`() throws {
            for name in [Self.longName, "agent-4712"] {
                let agent = try Agent(name: name)
                let aside = agent.path("\(name).old")
                #expect(try Program.run(["mv", agent.executable, aside]).status == 0)
                for isReplaced in [false, true] {
                    if isReplaced { try Program.copy(aside, to: agent.executable) }
                    #expect(try finds(agent, ["--process", name]))
                    #expect(try finds(agent, ["--exe", aside]))
                    let program = try Program.sockalive(["list", "--exe", agent.executable] + agent.ports)
                    #expect(program.status == 0 && program.errors.contains("no candidate"))
                    #expect(program.errors.contains("(PID \(agent.pid), \(aside))"))
                }
                // An upgrade that renames the new file over the old one.
                try Program.copy(aside, to: agent.path("new"))
                #expect(try Program.run(["mv", agent.path("new"), aside]).status == 0)
                #expect(try finds(agent, ["--process", name]))
                #expect(try finds(agent, ["--exe", aside]))
            }
        }

        /// The kernel's marker of an unlinked file may be part of a file's own name.
        @Test func `a live file is not taken for a deleted one`() throws {
            let agent = try Agent(name: "agent (deleted)")
            let path = agent.path("agent")
            #expect(try finds(agent, ["--exe", agent.executable]))
            #expect(try !finds(agent, ["--exe", path]))
            #expect(try Program.run(["mv", agent.executable, path]).status == 0)
            #expect(try finds(agent, ["--exe", path]))
            #expect(try Program.run(["rm", path]).status == 0)
            #expect(try finds(agent, ["--exe", path]))
        }

        @Test(.enabled(if: Machine.has("bash"), "bash is missing"))
        func `a script is found by its name, unless its interpreter was started`() throws {
            let peer = try Agent("plain", "0")
            let folder = try TemporaryFolder()
            for name in ["long-script-name.sh", "script-4713.sh"] {
                let script = folder.path(name)
                let text = "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/\(peer.port)\necho ready $$\nread -r _ <&3\n"
                #expect(
                    try Program.run(["sh", "-c", "printf %s '\(text)' >'\(script)' && chmod +x '\(script)'"]).status
                        == 0)
                let list = ["list", "--process", name] + peer.ports
                do {
                    let running = try Child([script])
                    let pid = try Int32(running.words(after: "ready", Deadline(.seconds(20)))[0])
                    #expect(try peer.own(Report.of(list)).map(\.pid) == [pid])
                }
                let running = try Child(["bash", script])
                let pid = try running.words(after: "ready", Deadline(.seconds(20)))[0]
                let program = try Program.sockalive(list)
                #expect(program.status == 0 && program.errors.contains("such a connection belongs to"))
                #expect(program.errors.contains("bash (PID \(pid))"))
            }
        }
    }
}

import Foundation
import Testing

extension ProcessTests {
    @Suite struct Output {
        @Test(arguments: ["list", "inject", "probe"]) func `the JSON has every key of the schema`(command: String)
            throws
        {
            let victim = try Victim()
            let program = try Program.sockalive(command, for: victim)
            try expectContract(program.output, command)
        }

        @Test(.enabled(if: Machine.isRoot, "only root may run sockalive as another user"))
        func `an unreadable value is null, never left out`() throws {
            let victim = try Victim()
            let list = ["list", "--source", "procfs", "--json"] + victim.selection
            let program = try Program.sockalive(list, launcher: Conditions.asNobody)
            let socket = try expectContract(program.output)
            for key in ["keepalive", "before", "idle_seconds", "fd"] { #expect(socket[key] is NSNull, "\(key)") }
            #expect(socket["error"] is [String: Any])
        }

        @Test(arguments: ["list", "inject", "probe"])
        func `without a candidate the JSON is complete, too`(command: String) throws {
            let none = ["--pid", "2147483647", "--json"]
            let program = try Program.sockalive([command] + none + (command == "list" ? [] : ["--no-lock"]))
            let report = try Report(json: program.output)
            #expect(report.sockets.isEmpty)
            #expect(report.summary.candidates == 0)
        }

        /// Returns the only socket.
        @discardableResult
        private func expectContract(_ json: String, _ command: String = "list") throws -> [String: Any] {
            let report = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
            expect(
                report, has: ["schema", "command", "dry_run", "firewall_timeout", "wanted", "sockets", "summary"])
            let settings = ["enabled", "idle", "interval", "count", "user_timeout"]
            expect(report["wanted"], has: settings)
            expect(report["summary"], has: ["candidates", "set", "unchanged", "failed", "answered", "silent"])
            let socket = try #require((report["sockets"] as? [[String: Any]])?.first)
            expect(
                socket,
                has: [
                    "pid", "process", "exe", "uid", "fd", "holders", "inode", "netns", "family", "state", "local",
                    "remote", "idle_seconds", "keepalive", "before", "next_probe_seconds", "verdict", "action",
                    "method", "crash_safe", "paused_microseconds", "error", "probe",
                ])
            for key in ["local", "remote"] { expect(socket[key], has: ["address", "port", "scope"]) }
            for key in ["keepalive", "before"] where !(socket[key] is NSNull) { expect(socket[key], has: settings) }
            if command == "probe" { expect(socket["probe"], has: ["answered", "milliseconds"]) }
            if !(socket["error"] is NSNull) { expect(socket["error"], has: ["code", "message", "remedy"]) }
            return socket
        }

        private func expect(_ value: Any?, has keys: [String]) {
            let missing = Set(keys).subtracting((value as? [String: Any] ?? [:]).keys)
            #expect(missing.isEmpty)
        }

        @Test(arguments: [
            "\u{1b}[31mred", "a\u{202e}b", "\u{9b}2J", "\u{7f}x", "\u{2066}y", "\u{61c}z", "line\nfeed", "cr\rlf",
            "a)b (", "x\u{200b}y", "{\"\\",
        ])
        func `a hostile name reaches neither terminal nor message`(name: String) throws {
            let victim = try Victim { $0.name = name }
            let texts = [
                try Program.sockalive(["list"] + victim.selection),
                try Program.sockalive(["inject", "--no-lock", "--verbose"] + victim.selection),
                // It runs without a matching connection.
                try Program.sockalive(["list", "--pid", "\(victim.pid)", "--port", "1"]),
                // Its connection belongs to no process of the selection.
                try Program.sockalive(["list", "--process", "nobody", "--port", "\(victim.port)"]),
                try Program.sockalive(["list"] + victim.selection, launcher: Machine.isRoot ? Conditions.asNobody : []),
                try Program.sockalive(["list", "--json"] + victim.selection),
                try Program.sockalive(["inject", "--dry-run", "--json"] + victim.selection),
                try Program.sockalive(["probe", "--no-lock", "--json"] + victim.selection),
                try Program.sockalive(["doctor"] + victim.selection),
                try Program.sockalive(["doctor", "--json"] + victim.selection),
            ].flatMap { [$0.output, $0.errors] }
            for text in texts {
                let hostile = text.unicodeScalars.filter {
                    $0 != "\n" && [.control, .format, .lineSeparator].contains($0.properties.generalCategory)
                }
                #expect(hostile.isEmpty, "\(text.debugDescription)")
            }
            if !name.contains("{") { #expect(texts.allSatisfy { !$0.contains(name) || name == "a)b (" }) }
            #expect(try Report.of(["list"] + victim.selection).socket.process == name)
        }

        @Test func `a hostile name makes no second line`() throws {
            let victim = try Victim { $0.name = "a\nb\r\nc" }
            let program = try Program.sockalive(["list"] + victim.selection)
            #expect(program.output.filter { $0.isNewline }.count == 2)
        }

        @Test func `quiet prints nothing, verbose prints the steps`() throws {
            let victim = try Victim()
            let inject = ["inject", "--no-lock"] + victim.selection
            let quiet = try Program.sockalive(inject + ["--quiet"])
            #expect(quiet.output + quiet.errors == "")
            #expect(try victim.keepalive() == [.forOneHour])
            let verbose = try Program.sockalive(inject + ["--verbose"])
            #expect(verbose.errors.contains("unchanged"))
        }

        @Test func `quiet still prints failures`() throws {
            let victim = try Victim()
            let program = try Program.sockalive(
                ["inject", "--no-lock", "--quiet", "--method", "pidfd"] + victim.selection,
                launcher: Conditions.withoutPidfd)
            #expect(program.output == "")
            #expect(program.errorLines.count == 1)
        }

        @Test func `of many failures the first are printed and the rest are counted`() throws {
            let victims = try (1...22).map { _ in try Victim { $0.sessions = 2 } }
            let program = try Program.sockalive(
                ["inject", "--quiet", "--no-lock", "--any-port", "--method", "pidfd"]
                    + victims.flatMap { ["--pid", "\($0.pid)"] },
                launcher: Conditions.denying("pidfd_getfd=EPERM"))
            #expect(program.status == 77)
            #expect(program.errorLines.count == 21, "\(program.errors)")
            #expect(program.errorLines.last?.contains("and 4 more failed") == true, "\(program.errors)")
        }

        @Test func `without a match it names the selection, and similar connections`() throws {
            let victim = try Victim { $0.program = "somebody" }
            let idle = try Program.sockalive(["list", "--process", "somebody", "--port", "1"])
            #expect(idle.errors.contains("looked for process somebody"))
            #expect(idle.errors.contains("somebody (PID \(victim.pid)) runs, but without such a connection"))
            let other = try Program.sockalive(["list", "--process", "nobody", "--port", "\(victim.port)"])
            #expect(other.errors.contains("somebody (PID \(victim.pid))"))
        }

        @Test func `a process that hung before is not the only one that the explanation knows`() throws {
            let victim = try Victim { $0.program = "somebody" }
            let folder = try TemporaryFolder()
            try "\(getpid())\n".write(toFile: folder.path("x.hung"), atomically: true, encoding: .utf8)
            let run = ["inject", "--dry-run", "--lock", folder.path("x.lock"), "--port", "\(victim.port)"]
            let other = try Program.sockalive(run + ["--process", "nobody"])
            #expect(other.errors.contains("somebody (PID \(victim.pid))"))
        }

        @Test func `it needs no environment`() throws {
            let victim = try Victim()
            let program = try Program.sockalive(["inject", "--no-lock"] + victim.selection, environment: [:])
            #expect(program.status == 0)
            #expect(try victim.keepalive() == [.forOneHour])
        }

        @Test(.enabled(if: Machine.has("script"), "script, which makes a terminal, is missing"))
        func `color is for terminals only, and not with NO_COLOR`() throws {
            let victim = try Victim()
            let list = ([Program.path("sockalive"), "list"] + victim.selection).joined(separator: " ")
            let terminal = ["script", "--quiet", "--return", "--command", list, "/dev/null"]
            #expect(try Program.run(terminal, environment: ["PATH": "/usr/bin:/bin"]).output.contains("\u{1b}["))
            let plain = try Program.run(terminal, environment: ["PATH": "/usr/bin:/bin", "NO_COLOR": "1"])
            #expect(plain.output.contains("unprotected") && !plain.output.contains("\u{1b}"))
        }
    }
}

extension Program {
    /// `sockalive … --json` on one victim.
    fileprivate static func sockalive(
        _ command: String, for victim: Victim, launcher: [String] = []
    ) throws -> Program {
        let lock = command == "list" ? [] : ["--no-lock"]
        return try sockalive([command] + victim.selection + lock + ["--json"], launcher: launcher)
    }
}

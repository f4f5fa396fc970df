import Foundation
import Testing

extension ProcessTests {
    @Suite struct MetricsFiles {
        private let folder: TemporaryFolder

        init() throws {
            folder = try TemporaryFolder()
        }

        private func run(_ command: String, _ file: String, _ victim: Victim) throws -> Program {
            try Program.sockalive([command, "--no-lock", "--quiet", "--metrics", file] + victim.selection)
        }

        /// The samples of one rule, and those that belong to no rule.
        private func values(_ file: String, rule: String? = nil) throws -> [String: Double] {
            let text = try String(contentsOfFile: file, encoding: .utf8)
            let form = /(?m)^(sockalive_\w+)(?:\{rule="(.*)"\}|\{version=".*"\})? (\S+)$/
            let samples = text.matches(of: form).filter { $0.output.2 == nil || rule == nil || $0.output.2! == rule! }
            return Dictionary(uniqueKeysWithValues: samples.map { (String($0.output.1), Double($0.output.3)!) })
        }

        @Test func `a run is described in numbers`() throws {
            let victim = try Victim { $0.sessions = 3 }
            let file = folder.path("sockalive.prom")
            for set in [3.0, 0] {
                #expect(try run("inject", file, victim).status == 0)
                let values = try values(file)
                #expect(values["sockalive_candidates"] == 3)
                #expect(values["sockalive_protected"] == 3)
                #expect(values["sockalive_set"] == set)
                #expect(values["sockalive_failed"] == 0)
                #expect(values["sockalive_silent"] == 0)
                #expect(values["sockalive_longest_idle_seconds"]! >= 0)
                #expect(abs(values["sockalive_last_run_timestamp_seconds"]! - Date().timeIntervalSince1970) < 60)
                #expect((0..<10).contains(values["sockalive_last_run_duration_seconds"]!))
            }
            let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
            #expect(mode == 0o644)
            #expect(try run("probe", file, victim).status == 0)
            #expect(try values(file)["sockalive_answered"] == 3)
        }

        @Test func `each rule has its numbers, by its text, and zeros where it means nothing`() throws {
            let (one, two) = (try Victim { $0.sessions = 3 }, try Victim())
            let file = folder.path("sockalive.prom")
            let rules = folder.path("rules")
            let first = one.selection.joined(separator: " ")
            try """
            \(first)   # three
            \(two.selection.joined(separator: " "))  --firewall-timeout   30m
            \(two.selection.joined(separator: " "))
            --process 'a \\"b' --pid 2147483647
            """.write(toFile: rules, atomically: true, encoding: .utf8)
            for command in ["inject", "probe"] {
                let program = try Program.sockalive(
                    [command, "--no-lock", "--quiet", "--metrics", file, "--config", rules])
                #expect(program.status == 0, "\(program.errors)")
                let values = try [
                    first, two.selection.joined(separator: " ") + " --firewall-timeout 30m",
                    two.selection.joined(separator: " "), #"--process 'a \\\"b' --pid 2147483647"#,
                ].map { try self.values(file, rule: $0) }
                #expect(values.map { $0["sockalive_candidates"] } == [3, 1, 0, 0])
                #expect(values.map { $0["sockalive_protected"] } == [3, 1, 0, 0])
                #expect(values.map { $0["sockalive_failed"] } == [0, 0, 0, 0])
                #expect(values.map { $0["sockalive_set"] } == (command == "inject" ? [3, 1, 0, 0] : [0, 0, 0, 0]))
                #expect(values.map { $0["sockalive_answered"] } == (command == "probe" ? [3, 1, 0, 0] : [0, 0, 0, 0]))
            }
            guard Machine.has("promtool") else { return }
            let check = try Program.run(["sh", "-c", "promtool check metrics < \"$0\" 2>&1", file])
            #expect(check.status == 0 && check.output == "", "\(check.output)")
        }

        @Test func `a rule of the command line is named by what it looks for`() throws {
            let file = folder.path("sockalive.prom")
            let inject = ["inject", "--no-lock", "--quiet", "--metrics", file]
            #expect(try Program.sockalive(inject + ["--pid", "2147483647", "--port", "7"]).status == 0)
            #expect(
                try values(file, rule: "PID 2147483647, established, port 7")["sockalive_candidates"] == 0)
        }

        @Test(.enabled(if: Machine.has("promtool"), "promtool, of Debian's prometheus, is missing"))
        func `promtool finds no error`() throws {
            let victim = try Victim()
            let file = folder.path("sockalive.prom")
            #expect(try run("inject", file, victim).status == 0)
            let check = try Program.run(["sh", "-c", "promtool check metrics < \"$0\" 2>&1", file])
            #expect(check.status == 0 && check.output == "", "\(check.output)")
        }

        @Test func `if the file cannot be written, the run continues, says so once, and leaves no file`() throws {
            let victim = try Victim()
            let link = folder.path("link")
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: "/dev/null")
            for file in [folder.path("none/x.prom"), folder.path(""), link, "/proc/x.prom"] {
                let program = try run("inject", file, victim)
                #expect(program.status == 1)
                #expect(program.errorLines.count == 1 && program.errors.contains("metrics file"), "\(program.errors)")
            }
            #expect(try victim.keepalive() == [.forOneHour])
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path("")) == ["link"])
        }

        @Test(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "a full disk of its own takes root"))
        func `on a full disk the last file stays, and there is no other`() throws {
            let victim = try Victim()
            let script = """
                mount -t tmpfs -o size=8k none "$0" && cd "$0" && echo old > x.prom && ! cat /dev/zero > filler 2>&-
                "$@"; echo "status $?"; cat x.prom; ls -A
                """
            let inject = [Program.path("sockalive"), "inject", "--no-lock", "--quiet", "--metrics", "x.prom"]
            let program = try Program.run(
                ["unshare", "--mount", "sh", "-c", script, folder.path("")] + inject + victim.selection)
            #expect(program.output == "status 1\nold\nfiller\nx.prom\n")
            #expect(program.errorLines.count == 1 && program.errors.contains("No space left"))
            #expect(try victim.keepalive() == [.forOneHour])
        }
    }
}

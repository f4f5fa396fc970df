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

        private func values(_ file: String) throws -> [String: Double] {
            let lines = try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n")
            let samples = lines.filter { !$0.hasPrefix("#") }.map { $0.split(separator: " ") }
            return Dictionary(uniqueKeysWithValues: samples.map { (String($0[0]), Double($0[1])!) })
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

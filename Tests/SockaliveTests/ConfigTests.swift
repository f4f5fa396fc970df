import Foundation
import Testing

extension ProcessTests {
    @Suite struct Configuration {
        private let folder: TemporaryFolder

        init() throws {
            folder = try TemporaryFolder()
        }

        private func file(_ text: String) throws -> String {
            try text.write(toFile: folder.path("rules"), atomically: true, encoding: .utf8)
            return folder.path("rules")
        }

        private func rule(_ victim: Victim, _ options: String = "") -> String {
            victim.selection.joined(separator: " ") + " \(options)\n"
        }

        @Test func `each rule sets its own sockets, in one run`() throws {
            let (one, two) = (try Victim(), try Victim())
            let path = try file("# two agents\n\(rule(one))\(rule(two, "--firewall-timeout 30m # the other"))")
            let report = try Report.of(["inject", "--config", path])
            #expect(report.summary.set == 2)
            #expect(report.firewallTimeout == nil && report.wanted == nil)
            #expect(try one.keepalive() == [.forOneHour])
            #expect(try two.keepalive() == [.init(enabled: true, idle: 300, interval: 30, count: 50)])
            for command in ["list", "probe"] {
                let program = try Program.sockalive(
                    [command, "--config", path, "--json"] + (command == "probe" ? ["--no-lock"] : []))
                #expect(program.status == 0)
                #expect(try Report(json: program.output).sockets.map(\.firewallTimeout).sorted() == [1800, 3600])
            }
            let check = try Program.sockalive(["list", "--check", "--config", path])
            #expect(check.status == 0)
        }

        @Test func `no rule applies to the port of another`() throws {
            let (one, two) = (try Victim(), try Victim())
            let path = try file("--pid \(one.pid) --port \(two.port)\n--pid \(two.pid) --port \(one.port)\n")
            let report = try Report.of(["inject", "--config", path])
            #expect(report.sockets.isEmpty)
            #expect(try one.keepalive() + two.keepalive() == [.untouched, .untouched])
        }

        @Test(arguments: methods) func `a socket of several rules gets the strictest`(method: String) throws {
            let victim = try Victim()
            let path = try file(
                rule(victim, "--method \(method)") + rule(victim, "--firewall-timeout 10m")
                    + "--exe '\(victim.executable)' --port \(victim.port) --idle 20s\n"
                    + "--pid \(victim.pid) --port 1 --idle 1\n")
            let report = try Report.of(["inject", "--config", path])
            #expect(try report.socket.method == method)
            #expect(try victim.keepalive() == [.init(enabled: true, idle: 20, interval: 10, count: 58)])
        }

        @Test func `a rule with an executable matches exactly that file`() throws {
            let (one, two) = (try Victim(), try Victim())
            let path = try file(
                "--exe \(one.executable) --port \(one.port) --port \(two.port)\n--pid 1 --port \(one.port)\n")
            #expect(try Report.of(["inject", "--config", path]).sockets.map(\.pid) == [one.pid])
            #expect(try two.keepalive() == [.untouched])
        }

        @Test(arguments: [
            ("--porrt 5", "--porrt"), ("--port 70000", "70000"), ("--process 'a", "a"), ("surplus", "surplus"),
            ("--process beremote --port", "--port"), ("--any-port --port 5", "--any-port"), ("--help", "--help"),
            ("--quiet", "--quiet"), ("--config x", "--config"), ("--method gdb", "gdb"), ("--idle 0", "0"),
            ("--process \u{1b}[31m/", "\\x1b[31m/"), ("--version", "--version"), ("--process a -h", "-h"),
        ])
        func `a bad line gives file, line and word, and changes nothing`(line: String, word: String) throws {
            let victim = try Victim()
            let path = try file("# first\n\(rule(victim))\(line)\n")
            for command in [["list"], ["inject", "--no-lock"], ["probe", "--no-lock"], ["watch", "--no-lock"]] {
                let program = try Program.sockalive(command + ["--config", path])
                let comment = Comment(rawValue: program.errors)
                #expect(program.status == 64, comment)
                #expect(program.errorLines.count == 1 && program.output == "", comment)
                #expect(program.errors.contains("\(path), line 3: ") && program.errors.contains(word), comment)
                #expect(!program.errors.contains("\u{1b}"))
            }
            #expect(try victim.keepalive() == [.untouched])
        }

        @Test func `an invisible character or a long word is rejected with file and line`() throws {
            let long = String(repeating: "a", count: 1_000_000)
            for (line, word) in [("--port\u{a0}1", "U+00A0 (no-break space)"), (long, "65536"), ("'\(long)", "65536")] {
                let path = try file("--pid 1\n\(line)\n")
                let program = try Program.sockalive(["list", "--config", path])
                #expect(program.status == 64 && program.errorLines.count == 1)
                #expect(program.errors.contains("\(path), line 2: ") && program.errors.contains(word))
                #expect(program.errors.utf8.count < 500)
            }
        }

        @Test func `a file from a Windows editor is valid`() throws {
            let victim = try Victim()
            let path = try file("\u{feff}" + rule(victim, "--firewall-timeout 30m").replacing("\n", with: "\r\n"))
            #expect(try Report.of(["list", "--config", path]).socket.firewallTimeout == 1800)
        }

        @Test func `a file without valid rules is rejected`() throws {
            let empty = try file("# nothing\n")
            for path in [empty, folder.path("none"), folder.path(""), "/dev/zero"] {
                let program = try Program.sockalive(["list", "--config", path])
                #expect(program.status == 64 && program.errorLines.count == 1)
                #expect(program.errors.contains(path))
            }
            let two = try file("--pid 1 --method ptrace\n--pid 1 --method pidfd\n")
            #expect(try Program.sockalive(["list", "--config", two]).errors.contains("line 2: --method"))
            let sources = try file("--pid 1 --source diag\n\n--pid 1 --source procfs\n")
            #expect(try Program.sockalive(["list", "--config", sources]).errors.contains("line 3: --source"))
        }

        @Test func `the file decides the socket source, also for a watch`() throws {
            let victim = try Victim()
            let withoutDiag = Conditions.denying("socket=ENOSYS")
            for (source, status) in [("diag", Int32(69)), ("procfs", 0)] {
                let path = try file(rule(victim) + rule(victim, "--source \(source)"))
                let list = try Program.sockalive(["list", "--config", path], launcher: withoutDiag)
                #expect(list.status == status)
            }
            let path = try file(rule(victim, "--source diag"))
            let watch = try Program.sockalive(["watch", "--no-lock", "--config", path], launcher: withoutDiag)
            #expect(watch.status == 69 && watch.errors.contains("tcp_diag"))
        }

        @Test func `if no rule finds a socket, only the selection of each is printed`() throws {
            let victim = try Victim()
            let path = try file("--pid \(victim.pid) --port 1\n--exe /nonexistent --port \(victim.port)\n")
            let program = try Program.sockalive(["list", "--config", path])
            #expect(program.status == 0 && program.output == "")
            #expect(program.errorLines.count == 1, "\(program.errors)")
            for word in ["PID \(victim.pid)", "port 1; ", "/nonexistent"] { #expect(program.errors.contains(word)) }
        }

        @Test(arguments: [
            ["--port", "5633"], ["--firewall-timeout", "60m"], ["--listeners"], ["--method", "auto"],
            ["--source", "auto"], ["--off"], ["--any-process"], ["--half-closed"],
        ])
        func `rules are in the file or on the command line, not in both`(options: [String]) throws {
            let path = try file("--pid 1\n")
            let program = try Program.sockalive(["list", "--config", path] + options)
            #expect(program.status == 64 && program.errors.contains("--config"))
        }
    }
}

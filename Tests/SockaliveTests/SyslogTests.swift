import Foundation
import Testing

extension ProcessTests {
    @Suite(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "a /dev/log of its own takes root"))
    struct Logging {
        private let log: PrivateLog

        init() throws {
            log = try PrivateLog()
        }

        private func inject(_ selection: [String], _ options: [String] = []) throws -> Program {
            try Program.sockalive(
                ["inject", "--syslog", "--quiet", "--lock", log.path("test.lock")] + options + selection,
                launcher: log.launcher)
        }

        @Test func `a change is one line, and an unchanged run logs nothing`() throws {
            let victim = try Victim { $0.sessions = 2 }
            let first = try inject(victim.selection)
            #expect(first.status == 0 && first.errors == "" && first.output == "")
            let lines = log.lines()
            #expect(lines.count == 2)
            let form = try Regex(
                #"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d sockalive\[\d+\]: event=set pid=\#(victim.pid) "#
                    + #"process="beremote" fd=\d+ local=127.0.0.1:\d+ remote=127.0.0.1:\#(victim.port) "#
                    + #"before=off after=600/60/50 method=pidfd"#)
            for line in lines { #expect(try form.wholeMatch(in: line) != nil, "\(line)") }
            #expect(try inject(victim.selection).status == 0)
            #expect(log.lines().isEmpty)
        }

        @Test func `nothing is written or logged in a dry run`() throws {
            let victim = try Victim()
            #expect(try inject(victim.selection, ["--dry-run", "--metrics", log.path("x.prom")]).status == 0)
            #expect(log.lines().isEmpty)
            #expect(!FileManager.default.fileExists(atPath: log.path("x.prom")))
        }

        @Test(arguments: ["\" pid=1 x=\"", "a\nb", "a\\\"", "\u{1b}[2J", "event=set", "a b=c", "x\u{202e}y"])
        func `a hostile name forges no line and no key`(name: String) throws {
            let victim = try Victim { $0.name = name }
            #expect(try inject(victim.selection).status == 0)
            let line = try #require(log.lines().first)
            let hostile = line.unicodeScalars.filter { [.control, .format].contains($0.properties.generalCategory) }
            #expect(hostile.isEmpty)
            // Quoted values are removed, as a reader of the log would do it.
            let keys = line.replacing(/"(?:[^"\\]|\\.)*"/, with: "").matches(of: /(\w+)=/).map { String($0.1) }
            #expect(keys == ["event", "pid", "process", "fd", "local", "remote", "before", "after", "method"])
        }

        @Test(arguments: ["inject", "probe"])
        func `a run that cannot work is logged once, until a run works`(command: String) throws {
            let victim = try Victim()
            // Its own PID namespace, with the /proc of ours.
            func run(lost: Bool, _ options: [String] = []) throws -> Int32 {
                try Program.sockalive(
                    [command, "--syslog", "--quiet", "--lock", log.path("test.lock")] + options + victim.selection,
                    launcher: log.launcher + (lost ? ["unshare", "--pid", "--fork"] : [])
                ).status
            }
            if command == "inject" { #expect(try run(lost: true, ["--dry-run"]) == 69) }
            #expect(log.lines().isEmpty)
            #expect(try run(lost: true) == 69)
            let lines = log.lines()
            #expect(lines.count == 1 && lines[0].contains(#"event=failed message="/proc shows another PID namespace"#))
            #expect(try run(lost: true) == 69)
            #expect(log.lines().isEmpty)
            _ = try run(lost: false)
            _ = log.lines()
            #expect(try run(lost: true) == 69)
            #expect(log.lines().count == 1)
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `the same failure is logged once, and again after a success`() throws {
            let victim = try Victim()
            let ptrace = victim.selection + ["--method", "ptrace"]
            do {
                let tracer = try Child([TestProgram.path("hold-traced"), "\(victim.pid)"])
                _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
                for expected in [1, 0, 0] {
                    let program = try inject(ptrace)
                    #expect(program.status == 77)
                    #expect(program.errorLines.count == 1)
                    #expect(log.lines().count { $0.contains("event=failed") && $0.contains("code=EPERM") } == expected)
                }
                tracer.kill()
            }
            #expect(try inject(ptrace).status == 0)
            #expect(log.lines().count { $0.contains("event=set") } == 1)
            #expect(try String(contentsOfFile: log.path("test.failures"), encoding: .utf8) == "")
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `a state file of another user, or that is no file, does no harm`() throws {
            let victim = try Victim()
            let tracer = try Child([TestProgram.path("hold-traced"), "\(victim.pid)"])
            _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
            let memory = log.path("test.failures")
            let ptrace = victim.selection + ["--method", "ptrace"]
            try Data((0..<200_000).map { _ in UInt8.random(in: 0...255) }).write(to: URL(filePath: memory))
            #expect(try inject(ptrace).status == 77)
            #expect(log.lines().count == 1)
            for command in [["mkdir", memory], ["mkfifo", memory], ["ln", "-s", "/dev/zero", memory]] {
                _ = try Program.run(["rm", "-rf", memory])
                _ = try Program.run(command)
                #expect(try inject(ptrace).status == 77)
                #expect(log.lines().count == 1)
            }
        }

        @Test func `a missing or stuck logger neither stops nor fails a run`() throws {
            let victim = try Victim()
            let options = ["inject", "--syslog", "--no-lock"] + victim.selection
            let missing = try Program.sockalive(options, launcher: PrivateLog.missing)
            #expect(missing.status == 0)
            #expect(missing.errors.contains("/dev/log"))
            log.fill()
            let start = ContinuousClock.now
            let stuck = try Program.sockalive(options + ["--idle", "5m"], launcher: log.launcher)
            #expect(stuck.status == 0)
            #expect(stuck.errors.contains("/dev/log"))
            #expect(start.duration(to: .now) < .seconds(10))
            #expect(try victim.keepalive().first?.idle == 300)
        }

        @Test func `an empty environment and no open stream are enough`() throws {
            let victim = try Victim()
            let closed = ["env", "-i", "/bin/sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"]
            let program = try Program.sockalive(
                ["inject", "--syslog", "--quiet", "--no-lock"] + victim.selection, launcher: log.launcher + closed)
            #expect(program.status == 0)
            #expect(log.lines().count == 1)
            #expect(try victim.keepalive() == [.forOneHour])
        }
    }
}

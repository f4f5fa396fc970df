import Foundation
import Glibc
import Testing

/// A kernel without pidfd_getfd: the ptrace method stops each target once, and later runs look without touching.
extension ProcessTests {
    @Suite(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
    struct Remembering {
        private let folder: TemporaryFolder
        private var lock: String { folder.path("run.lock") }
        private var state: String { folder.path("run.state") }

        init() throws {
            folder = try TemporaryFolder()
        }

        private func run(
            _ arguments: [String], on victim: Victim, launcher: [String] = Conditions.withoutPidfd
        ) throws -> Report {
            let lock = arguments[0] == "list" ? [] : ["--lock", lock]
            return try Report.of(arguments + lock + victim.selection, launcher: launcher)
        }

        /// Every ptrace call would fail.
        private static let withoutPtrace = Conditions.denying(
            "pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS", "ptrace=EPERM")

        private static func isRemembered(_ report: Report) -> Bool {
            report.sockets.allSatisfy {
                $0.remembered && $0.action == "unchanged" && $0.verdict == "protected" && $0.method == nil
                    && $0.pausedMicroseconds == 0 && $0.keepalive == .init(.forOneHour)
            }
        }

        @Test func `the second run stops nobody`() throws {
            let victim = try Victim { $0.sessions = 10 }
            let first = try run(["inject"], on: victim)
            #expect(first.summary.set == 10 && first.sockets.allSatisfy { !$0.remembered && $0.method == "ptrace" })
            for _ in 0..<3 {
                let later = try run(["inject"], on: victim, launcher: Self.withoutPtrace)
                #expect(later.summary.unchanged == 10 && Self.isRemembered(later))
            }
            let plan = try run(["inject", "--dry-run"], on: victim, launcher: Self.withoutPtrace)
            #expect(plan.summary.unchanged == 10 && plan.sockets.allSatisfy(\.remembered))
            #expect(try victim.keepalive() == Array(repeating: .forOneHour, count: 10))
            #expect(try victim.echoes())
        }

        @Test(
            .enabled(if: Machine.has("strace"), "strace counts the calls"),
            .enabled(if: Machine.isRoot && Machine.movesClock, "unshare cannot make a time namespace here"))
        func `a day of runs every five minutes makes the ptrace calls of one`() throws {
            let victim = try Victim { $0.sessions = 10 }
            let trace = folder.path("trace")
            func calls(_ arguments: [String], atMinute minute: Int) throws -> Int {
                let tracer = ["strace", "-f", "-qq", "-o", trace, "-e", "trace=ptrace"]
                let clock = ["unshare", "--time", "--boottime", "\(minute * 60)", "--"]
                _ = try run(arguments, on: victim, launcher: clock + tracer + Conditions.denying("pidfd_getfd=ENOSYS"))
                return try String(contentsOfFile: trace, encoding: .utf8).split(separator: "\n")
                    .count { $0.contains("ptrace(") }
            }
            #expect(try calls(["list"], atMinute: 0) == 0)
            #expect(try calls(["inject", "--dry-run"], atMinute: 0) == 0)
            #expect(try calls(["inject"], atMinute: 0) > 10)
            for run in stride(from: 1, to: 288, by: 1) {
                try #require(try calls(["inject"], atMinute: run * 5) == 0, "run \(run)")
            }
            #expect(try calls(["list"], atMinute: 1435) == 0)
            #expect(try calls(["inject"], atMinute: 1445) > 10)
        }

        @Test(arguments: [["--off"], ["--idle", "7200", "--interval", "75", "--count", "9"]])
        func `what the application changes in between is treated by the next run`(change: [String]) throws {
            let victim = try Victim { $0.sessions = 2 }
            _ = try run(["inject"], on: victim)
            // The application itself, as far as the kernel can tell.
            _ = try Report.of(["inject", "--method", "pidfd"] + change + victim.selection)
            #expect(try victim.keepalive() != [.forOneHour, .forOneHour])
            let listed = try run(["list"], on: victim, launcher: Self.withoutPtrace)
            #expect(listed.sockets.allSatisfy { $0.verdict != "protected" && !$0.remembered })
            let next = try run(["inject"], on: victim)
            #expect(next.summary.set == 2)
            #expect(try victim.keepalive() == [.forOneHour, .forOneHour])
        }

        @Test func `another rule, and a run that was killed, read the socket again`() throws {
            let victim = try Victim()
            _ = try run(["inject"], on: victim)
            #expect(try run(["inject", "--user-timeout", "2h"], on: victim).socket.action == "set")
            #expect(try run(["inject", "--user-timeout", "2h"], on: victim).socket.remembered)
            #expect(try run(["inject", "--off"], on: victim).socket.action == "set")
            #expect(try run(["inject", "--off"], on: victim, launcher: Self.withoutPtrace).socket.remembered)
            // Nobody can tell what a run without the lock has changed.
            #expect(
                try Report.of(["inject"] + victim.selection, launcher: Conditions.withoutPidfd).socket.action == "set")
            let probe = try run(["probe"], on: victim).socket
            #expect(probe.probe?.answered == true && !probe.remembered)
            #expect(try run(["inject"], on: victim, launcher: Self.withoutPtrace).socket.remembered)
        }

        @Test func `a broken state file is as none`() throws {
            let victim = try Victim()
            _ = try run(["inject"], on: victim)
            let whole = try Data(contentsOf: URL(fileURLWithPath: state))
            var mode = stat()
            #expect(stat(state, &mode) == 0 && mode.st_mode & 0o777 == 0o600)
            for broken in [whole.dropLast(), whole.prefix(100), Data(), Data("x".utf8) + whole] {
                try broken.write(to: URL(fileURLWithPath: state))
                let report = try run(["inject"], on: victim).socket
                #expect(report.method == "ptrace" && report.action == "unchanged")
                #expect(try run(["inject"], on: victim, launcher: Self.withoutPtrace).socket.remembered)
            }
        }

        @Test func `with data in flight nobody knows, and the socket is asked`() throws {
            let victim = try Victim { $0.fillsQueue = true }
            _ = try run(["inject"], on: victim)
            let plan = try run(["inject", "--dry-run"], on: victim, launcher: Self.withoutPtrace).socket
            #expect(plan.remembered && plan.verdict == nil)
            #expect(try run(["inject"], on: victim).socket.method == "ptrace")
        }

        /// Half of the time an acknowledgement is outstanding.
        @Test func `while data goes to and fro nobody is stopped as a rule`() throws {
            let victim = try Victim()
            _ = try run(["inject"], on: victim)
            victim.startStream()
            let runs = try (0..<10).map { _ in try run(["inject"], on: victim).socket }
            let (sent, received) = try victim.stopStream()
            #expect(sent == received && sent > 10)
            #expect(runs.count(where: \.remembered) >= 5)
        }

        @Test func `by pidfd there is no state`() throws {
            let victim = try Victim()
            _ = try run(["inject"], on: victim, launcher: [])
            #expect(!FileManager.default.fileExists(atPath: state))
        }
    }
}

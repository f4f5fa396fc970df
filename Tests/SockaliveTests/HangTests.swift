import Foundation
import Glibc
import Testing

extension ProcessTests {
    /// Calls about a target that do not return. `Tests/Torture/hang.sh` makes each of them by real processes, a FUSE
    /// server that does not answer, or a frozen cgroup. It prints a line for each thing that is wrong.
    @Suite(
        .enabled(if: Machine.isRoot && Machine.makesNamespaces, "only root may mount, freeze and trace"),
        .enabled(if: FileManager.default.fileExists(atPath: "/dev/fuse"), "there is no FUSE here"))
    struct Hangs {
        @Test func `a call that does not return stops no run, and keeps no other target from its keepalive`() throws {
            let kinds =
                [
                    "child", "stranger", "strangers", "slow", "slows", "exe", "lock", "many", "output", "metrics",
                    "config",
                ]
                + (Machine.injectsByPtrace
                    ? ["program", "seize", "code", "table", "frozen", "holders", "elsewhere"] : [])
            let hangs = try run("Torture/hang.sh", ["1"] + kinds)
            let said = "\(hangs.output)\(hangs.errors)"
            #expect(hangs.status == 0, "\(said)")
            // A machine without cgroup v2 skips.
            if hangs.output.hasPrefix("skipped") { return }
            for kind in kinds { #expect(hangs.output.contains(kind + " "), "\(said)") }
        }

        @Test func `kills of parent, worker and both harm no target, and leave no lock and no process`() throws {
            let killed = try run("Torture/supervisor.sh", ["60"])
            #expect(killed.status == 0, "\(killed.output)\(killed.errors)")
            #expect(killed.output.contains(" of a live one: 0 harmed"), "\(killed.output)")
        }

        /// Each thread has a socket of its own in hand when the worker is killed, by a shortage of memory perhaps.
        @Test(.enabled(if: Machine.processors > 1, "there is one processor, and so no second thread"))
        func `a kill of a worker of several threads costs no socket its keepalive`() throws {
            let victim = try Victim {
                $0.sessions = 2000
                $0.mode = .poll
            }
            var kills = 0
            for _ in 0..<10 where kills < 3 {
                _ = try Report.of(["inject", "--off"] + victim.selection)
                let run = try Child(
                    [Program.path("sockalive"), "inject", "--no-lock", "--quiet"] + victim.selection)
                if killWorker(of: run.pid) { kills += 1 }
                #expect(run.wait() == 0)
                let settings = try victim.keepalive()
                #expect(settings.count == 2000 && settings.allSatisfy { $0 == .forOneHour })
            }
            #expect(kills == 3)
        }

        /// - Returns: false if its threads had ended before.
        private func killWorker(of parent: pid_t) -> Bool {
            let deadline = Deadline(.seconds(20))
            while deadline.millisecondsLeft > 0 && kill(parent, 0) == 0 {
                let children = try? String(contentsOfFile: "/proc/\(parent)/task/\(parent)/children", encoding: .utf8)
                guard let worker = children?.split(separator: " ").first.flatMap({ pid_t($0) }) else { continue }
                let threads = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(worker)/task")
                if threads?.count ?? 0 > 2 { return kill(worker, SIGKILL) == 0 }
            }
            return false
        }

        /// The limits of the script are for a machine that is idle, and for the program that ships: the debug build takes
        /// seconds for a table of some thousand lines, and on a busy machine that is taken for a hang.
        private func run(_ script: String, _ arguments: [String]) throws -> Program {
            let environment = ProcessInfo.processInfo.environment.merging(
                [
                    "SOCKALIVE": Program.shipped ?? Program.path("sockalive"), "VICTIMS": TestProgram.folder,
                    "SLACK": "6", "JOBS": "6",
                ]
            ) { $1 }
            return try Program.run(
                [TestProgram.script(script)] + arguments, environment: environment, deadline: .seconds(300))
        }
    }
}

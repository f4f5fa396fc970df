import Foundation
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
                ["child", "stranger", "strangers", "slow", "exe", "lock", "many", "output", "metrics", "config"]
                + (Machine.injectsByPtrace ? ["program", "seize", "code", "table", "frozen", "holders"] : [])
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

        /// The limits of the script are for a machine that is idle.
        private func run(_ script: String, _ arguments: [String]) throws -> Program {
            let environment = ProcessInfo.processInfo.environment.merging(
                [
                    "SOCKALIVE": Program.path("sockalive"), "VICTIMS": TestProgram.folder, "SLACK": "6", "JOBS": "6",
                ]
            ) { $1 }
            return try Program.run(
                [TestProgram.script(script)] + arguments, environment: environment, deadline: .seconds(300))
        }
    }
}

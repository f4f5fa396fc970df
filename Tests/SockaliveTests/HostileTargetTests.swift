import Foundation
import Testing

extension ProcessTests {
    /// Hostile targets that an ordinary user starts. `Tests/Torture/attacks.sh` runs them. It prints a line for each
    /// attack, and exits with 0 if nothing was gained, harmed, crashed or hung.
    @Suite(
        .enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"),
        .enabled(if: Machine.isRoot, "only root has rights that somebody else could gain"))
    struct HostileTargets {
        @Test func `an attacker that writes to a held thread's memory does not become root`() throws {
            try expectNothingGained("root")
        }

        @Test(.enabled(if: FileManager.default.fileExists(atPath: "/dev/fuse"), "there is no FUSE here"))
        func `nothing is written into a program that has taken over the PID`() throws {
            try expectNothingGained("memory")
        }

        @Test func `no call passes a seccomp filter that forbids it`() throws {
            try expectNothingGained("filter")
        }

        @Test func `memory that appears and disappears does not crash the injector`() throws {
            try expectNothingGained("crash")
        }

        @Test func `a set-user-ID program started by another user does not count as root's`() throws {
            try expectNothingGained("user")
        }

        @Test func `a stopped injector leaves no target stopped`() throws {
            try expectNothingGained("stop")
        }

        @Test func `a long call leaves no thread unwatched`() throws {
            try expectNothingGained("long")
        }

        @Test func `no call is made by another system call table`() throws {
            try expectNothingGained("table")
        }

        @Test func `a killed helper does not make the injector keep all rights`() throws {
            try expectNothingGained("worker")
        }

        @Test func `at any request, no action of another thread gains or harms anything`() throws {
            try expectNothingGained("steps", deadline: .seconds(600))
        }

        private func expectNothingGained(
            _ kind: String, deadline: Duration = .seconds(300), sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            let environment = ProcessInfo.processInfo.environment.merging(
                ["SOCKALIVE": Program.path("sockalive"), "VICTIMS": TestProgram.folder]) { $1 }
            let attacks = try Program.run(
                [TestProgram.script("Torture/attacks.sh"), "60", kind], environment: environment, deadline: deadline)
            #expect(attacks.status == 0, "\(attacks.output)\(attacks.errors)", sourceLocation: sourceLocation)
            #expect(attacks.output.contains(" tried "), sourceLocation: sourceLocation)
        }
    }
}

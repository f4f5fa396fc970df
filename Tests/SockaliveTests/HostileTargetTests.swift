import Foundation
import Testing

extension ProcessTests {
    /// An ordinary user starts these targets and means harm. `Tests/Torture/attacks.sh` runs them; it prints a line for
    /// each attack, and ends with 0 if nothing was gained, harmed, crashed or hung.
    @Suite(
        .enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"),
        .enabled(if: Machine.isRoot, "only root has rights that somebody else could gain"))
    struct HostileTargets {
        @Test func `nobody becomes root by writing where a thread is held`() throws {
            try expectNothingGained("root")
        }

        @Test(.enabled(if: FileManager.default.fileExists(atPath: "/dev/fuse"), "there is no FUSE here"))
        func `nothing is written into a program that has taken over the number`() throws {
            try expectNothingGained("memory")
        }

        @Test func `no call passes a seccomp filter that forbids it`() throws {
            try expectNothingGained("filter")
        }

        @Test func `memory that comes and goes does not end the injector`() throws {
            try expectNothingGained("crash")
        }

        @Test func `a set-user-ID program that somebody else has started is not root's`() throws {
            try expectNothingGained("user")
        }

        @Test func `a stopped injector leaves no target standing still`() throws {
            try expectNothingGained("stop")
        }

        @Test func `a call that lasts leaves no thread that nobody watches`() throws {
            try expectNothingGained("long")
        }

        @Test func `no call is taken from another table`() throws {
            try expectNothingGained("table")
        }

        @Test func `a killed helper is no reason to keep all rights`() throws {
            try expectNothingGained("worker")
        }

        @Test func `whatever another thread does at any request, nothing is gained and nobody harmed`() throws {
            try expectNothingGained("steps", deadline: .seconds(600))
        }

        private func expectNothingGained(
            _ kind: String, deadline: Duration = .seconds(300), sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            let environment = ProcessInfo.processInfo.environment.merging(
                ["SOCKALIVE": Program.path("sockalive"), "VICTIMS": TestProgram.folder]) { $1 }
            let attacks = try Program.run(
                [TestProgram.script("Torture/attacks.sh"), "200", kind], environment: environment, deadline: deadline)
            #expect(attacks.status == 0, "\(attacks.output)\(attacks.errors)", sourceLocation: sourceLocation)
            #expect(attacks.output.contains(" tried "), sourceLocation: sourceLocation)
        }
    }
}

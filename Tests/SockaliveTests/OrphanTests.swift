import Testing

extension ProcessTests {
    /// In a container the first process may be any program, and wait for no child. What a run left to it would stay there
    /// as a zombie, with its process number.
    @Suite(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "another PID namespace takes root"))
    struct Orphans {
        private let first: Child
        private let inside: [String]

        init() throws {
            first = try Child(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sleep", "600"])
            let deadline = Deadline(.seconds(20))
            var pid = ""
            while pid.isEmpty && deadline.millisecondsLeft > 0 {
                pid = try Program.run(["pgrep", "--parent", "\(first.pid)", "--exact", "sleep"]).output
                    .filter(\.isNumber)
            }
            inside = ["nsenter", "--target", pid, "--pid", "--mount"]
        }

        /// One of the targets is another user's, so that a helper with that user's rights reaches it.
        private func victims() throws -> [Victim] {
            [try Victim { $0.launcher = inside }, try Victim { $0.launcher = inside + Conditions.asNobody }]
        }

        private func zombies() throws -> [String] {
            try Program.run(inside + ["sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status; true"]).output
                .split(separator: "\n").map(String.init)
        }

        @Test(arguments: methods) func `a run leaves no zombie`(method: String) throws {
            let victims = try victims()
            let options = ["--method", method, "--any-process"] + victims.flatMap { ["--port", "\($0.port)"] }
            for words in [["inject", "--off"], ["inject"], ["list"], ["probe"], ["inject", "--timeout", "1s"]] {
                let lock = words[0] == "list" ? [] : ["--no-lock"]
                let run = try Program.sockalive(words + ["--quiet"] + lock + options, launcher: inside)
                #expect(run.status == 0, "\(run.errors)")
            }
            #expect(try zombies() == [])
            withExtendedLifetime(victims) {}
        }

        @Test func `a watch keeps none for longer than a round`() throws {
            let victims = try victims()
            let watch = try Child(
                inside + [Program.path("sockalive"), "watch", "--no-lock", "--every", "1", "--any-process"]
                    + victims.flatMap { ["--port", "\($0.port)"] })
            _ = watch.errors.line(until: Deadline(.seconds(20)))
            _ = watch.errors.line(until: Deadline(.seconds(20)))
            for _ in 0..<5 {
                #expect(try Program.run(["sleep", "1"]).status == 0)
                // The worker of this round, and its helper.
                #expect(try zombies().count <= 2)
            }
            #expect(try Program.run(inside + ["pkill", "--exact", "sockalive"]).status == 0)
            #expect(watch.wait() == 0)
            #expect(try zombies() == [])
        }
    }
}

import Testing

extension ProcessTests {
    /// A PID is reused every 100 µs, by a `beremote` without sockets and by another process with one.
    @Suite(.enabled(if: Machine.isRoot && Machine.makesNamespaces, "only root may say which PID comes next"))
    struct RecycledPIDs {
        private static let runs = 100

        @Test(arguments: methods) func `a process with a reused PID is never set`(method: String) throws {
            let churn = try Child(["unshare", "--pid", "--fork", "--mount-proc", TestProgram.path("pid-churn"), "200"])
            let port = try churn.words(after: "ready", Deadline(.seconds(10)))[0]
            let first = try Program.run(["pgrep", "--parent", "\(churn.pid)"]).output.filter(\.isNumber)
            let inside = ["nsenter", "--target", first, "--pid", "--mount"]
            let inject = ["inject", "--no-lock", "--method", method, "--port", port, "--json", "--quiet"]
            var counts = [0, 0, 0]
            // Other processes take the PID at times. How often depends on the machine.
            for _ in 0..<20 where counts[1] <= Self.runs {
                for _ in 0..<Self.runs {
                    let report = try Report(json: try Program.sockalive(inject, launcher: inside).output)
                    #expect(report.sockets.isEmpty)
                }
                churn.input.write("\n")
                counts = try churn.words(after: "churned", Deadline(.seconds(10))).compactMap { Int($0) }
            }
            churn.input.close()
            #expect(counts[1] > Self.runs, "the PID was recycled \(counts[1]) times")
            #expect(counts[2] == 0, "the stranger's socket was touched")
        }
    }
}

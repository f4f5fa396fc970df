import SockaliveCore
import Testing

extension ProcessTests {
    /// Several threads read the links of a process with thousands of descriptors, and the table of its sockets besides.
    @Suite(.enabled(if: Machine.isRoot, "only root may give a process so many descriptors"))
    struct LargeProcesses {
        private static let sessions = 4000
        /// One processor, and so one thread.
        private static let alone = ["taskset", "--cpu-list", "0"]

        @Test(.enabled(if: MethodChoice.auto.resolved() == .pidfd, "nothing can be borrowed here"))
        func `every socket is found and set once, by one thread and by several`() throws {
            let limit = ["prlimit", "--nofile=20000:20000"]
            let victim = try Victim {
                $0.sessions = Self.sessions
                $0.mode = .poll
                $0.launcher = limit
                $0.peerLauncher = limit
            }
            let truth = victim.sessions.map(\.descriptor).sorted()
            for source in ["auto", "diag", "procfs"] {
                for launcher in source == "auto" ? [[], Self.alone] : [[]] {
                    let list = try Program.sockalive(
                        ["list", "--json", "--source", source] + victim.selection, launcher: launcher)
                    #expect(list.errors == "")
                    let sockets = try Report(json: list.output).sockets
                    #expect(sockets.compactMap(\.fd) == truth, "\(source) \(launcher)")
                    #expect(sockets.allSatisfy { $0.holders.count == 1 }, "\(source) \(launcher)")
                }
            }
            for (launcher, idle) in [([], 601), (Self.alone, 602)] {
                let inject = try Program.sockalive(
                    ["inject", "--json", "--idle", "\(idle)"] + victim.selection, launcher: launcher)
                #expect(try Report(json: inject.output).summary.set == Self.sessions, "\(inject.errors)")
                let settings = try victim.keepalive()
                #expect(settings.count == Self.sessions && settings.allSatisfy { $0.idle == idle && $0.enabled })
            }
        }
    }
}

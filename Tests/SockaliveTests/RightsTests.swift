import Foundation
import Glibc
import Testing

extension ProcessTests {
    /// Another user's process is accessed with that user's rights, and with more only if those are not enough.
    @Suite(.enabled(if: Machine.isRoot && Machine.injectsByPtrace, "only root has rights to give up"))
    struct RightsOfTheOwner {
        /// Without Yama, or with scope 0, one process of a user may access another.
        private static let mayDrop: Bool = {
            let scope = try? String(contentsOfFile: "/proc/sys/kernel/yama/ptrace_scope", encoding: .utf8)
            return (scope ?? "0").hasPrefix("0")
        }()

        private static let methods = ["pidfd", "ptrace"]

        @Test(
            .enabled(if: mayDrop, "Yama keeps one process of a user from another"), arguments: TestProgram.kinds,
            methods)
        func `another user's process is accessed with that user's rights`(
            kind: TestProgram.Kind, method: String
        ) throws {
            for how in ["plain", "one-coroutine", "rseq"] {
                let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", kind), how])
                try expectSet(target, method, rights: "owner")
            }
            // Only CAP_SYS_ADMIN may suspend a filter, and one of several threads may add a filter to all at any time.
            for how in ["threads", "seccomp"] {
                let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", kind), how])
                try expectSet(target, method, rights: method == "pidfd" ? "owner" : "kept")
            }
        }

        @Test(arguments: TestProgram.kinds, methods)
        func `an undumpable process is accessed with all rights, and each call is checked`(
            kind: TestProgram.Kind, method: String
        ) throws {
            for how in ["plain", "threads", "deep", "coroutine", "rseq"] {
                let victim = try TestProgram.unreadable("victim-odd", kind)
                // setpriv(1) still has its capabilities when it starts a program; env(1) has none.
                try expectSet(try Echoer(Conditions.asNobody + ["env", victim, how]), method, rights: "kept")
            }
        }

        @Test(arguments: methods) func `root's own process is accessed with root's rights`(method: String) throws {
            let target = try Echoer([TestProgram.path("victim-odd", .dynamic64), "threads"])
            try expectSet(target, method, rights: "owner")
        }

        /// For example without CAP_SETUID, as in a container.
        @Test(arguments: methods) func `rights that cannot be dropped are kept`(method: String) throws {
            let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", .dynamic64), "threads"])
            try expectSet(target, method, rights: "kept", launcher: Conditions.denying("setresuid=EPERM"))
        }

        /// With these rights `/proc/PID/mem` of another user opens only for reading. ptrace(2) writes instead.
        @Test(arguments: TestProgram.kinds, methods)
        func `the minimal capabilities are enough`(kind: TestProgram.Kind, method: String) throws {
            for how in ["threads", "deep"] {
                let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", kind), how])
                try expectSet(target, method, rights: "kept", launcher: Conditions.withSmallestRights)
            }
        }

        private func expectSet(
            _ target: Echoer, _ method: String, rights: String, launcher: [String] = []
        ) throws {
            #expect(target.echoes())
            for idle in [1000, 2000] {
                let inject = ["inject", "--method", method, "--idle", "\(idle)"] + target.selection
                let socket = try Report.of(inject, launcher: launcher).socket
                #expect(socket.action == "set" && socket.method == method && socket.rights == rights)
                let found = try SocketKeepalive.read(pid: target.pid, descriptors: [try #require(socket.fd)])
                #expect(found.map(\.enabled) == [true] && found.map(\.idle) == [idle])
                #expect(target.echoes())
            }
            let trace = try ProcessTrace(of: target.pid)
            #expect(trace.tracer == "0")
        }
    }
}

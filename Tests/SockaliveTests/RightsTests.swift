import Foundation
import Glibc
import Testing

extension ProcessTests {
    /// Another user's process is reached with that user's rights, and with more only where those do not do.
    @Suite(.enabled(if: Machine.isRoot && Machine.injectsByPtrace, "only root has rights to give up"))
    struct RightsOfTheOwner {
        /// Without Yama, or with Yama's 0, one process of a user may reach into another.
        private static let mayDrop: Bool = {
            let scope = try? String(contentsOfFile: "/proc/sys/kernel/yama/ptrace_scope", encoding: .utf8)
            return (scope ?? "0").hasPrefix("0")
        }()

        private static let methods = ["pidfd", "ptrace"]

        @Test(
            .enabled(if: mayDrop, "Yama keeps one process of a user from another"), arguments: TestProgram.kinds,
            methods)
        func `another user's process is reached with that user's rights`(
            kind: TestProgram.Kind, method: String
        ) throws {
            for how in ["plain", "one-coroutine", "rseq"] {
                let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", kind), how])
                try expectSet(target, method, rights: "owner")
            }
            // Filters are suspended with CAP_SYS_ADMIN alone, and of several threads one may put one on all at any moment.
            for how in ["threads", "seccomp"] {
                let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", kind), how])
                try expectSet(target, method, rights: method == "pidfd" ? "owner" : "kept")
            }
        }

        @Test(arguments: TestProgram.kinds, methods)
        func `an undumpable process is reached with all rights, and each call is looked at`(
            kind: TestProgram.Kind, method: String
        ) throws {
            for how in ["plain", "threads", "deep", "coroutine", "rseq"] {
                let victim = try TestProgram.unreadable("victim-odd", kind)
                // setpriv(1) still has its capabilities when it starts a program; env(1) has none.
                try expectSet(try Echoer(Conditions.asNobody + ["env", victim, how]), method, rights: "kept")
            }
        }

        @Test(arguments: methods) func `root's own process is reached as before`(method: String) throws {
            let target = try Echoer([TestProgram.path("victim-odd", .dynamic64), "threads"])
            try expectSet(target, method, rights: "owner")
        }

        /// Without CAP_SETUID, say, as in a container.
        @Test(arguments: methods) func `where rights cannot be given up they are kept`(method: String) throws {
            let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", .dynamic64), "threads"])
            try expectSet(target, method, rights: "kept", launcher: Conditions.denying("setresuid=EPERM"))
        }

        /// `/proc/PID/mem` of another user opens for reading alone then; it is written by ptrace(2).
        @Test(arguments: TestProgram.kinds, methods)
        func `the smallest rights do`(kind: TestProgram.Kind, method: String) throws {
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

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

    /// What is missing is named, and the remedy is one that works in that place.
    @Suite(.enabled(if: Machine.isRoot, "only root has rights to give up")) struct Remedies {
        private func root(_ set: String) -> [String] {
            ["setpriv", "--bounding-set=\(set)", "--inh-caps=-all"]
        }

        @Test func `root is told which capability it lacks, and not to be root`() throws {
            let victim = try Victim()
            let answer = try DoctorAnswer.of(victim.selection, launcher: root("-sys_ptrace"), status: 1)
            #expect(try answer.target.message.contains("it has CAP_SYS_PTRACE, which sockalive lacks"))
            #expect(try answer.target.remedy?.contains("add CAP_SYS_PTRACE:") == true)
            #expect(answer.checks.allSatisfy { $0.remedy?.contains("as root") != true })
        }

        @Test func `CAP_DAC_OVERRIDE opens the descriptors as CAP_DAC_READ_SEARCH does`() throws {
            let target = try Echoer(Conditions.asNobody + [TestProgram.path("victim-odd", .dynamic64), "plain"])
            let launcher = root("-all,+sys_ptrace,+dac_override")
            #expect(try Report.of(["inject"] + target.selection, launcher: launcher).socket.action == "set")
            let answer = try DoctorAnswer.of(target.selection, launcher: launcher)
            #expect(try answer.check("cap_dac_read_search").status == "ok")
            #expect(try answer.target.status == "ok")
            let denied = try DoctorAnswer.of(target.selection, launcher: root("-all,+sys_ptrace"), status: 1)
            #expect(try denied.target.remedy?.contains("add CAP_DAC_READ_SEARCH:") == true)
        }

        @Test(.enabled(if: Machine.makesNamespaces, "unshare cannot make a namespace here"))
        func `root of a user namespace is told that its rights end there`() throws {
            let victim = try Victim()
            let answer = try DoctorAnswer.of(victim.selection, launcher: ["unshare", "--user", "-r"], status: 1)
            #expect(try answer.target.message.contains("it does not belong to this user namespace"))
            #expect(try answer.target.remedy?.contains("outside this user namespace") == true)
            #expect(try answer.check("cap_sys_ptrace").message.contains("none outside"))
        }

        @Test func `an undumpable process is told apart from another user's`() throws {
            let program = try TestProgram.unreadable("victim-odd", .dynamic64)
            let target = try Echoer(Conditions.asNobody + ["env", program, "plain"])
            let answer = try DoctorAnswer.of(target.selection, launcher: Conditions.asNobody, status: 1)
            #expect(try answer.target.message.contains("it is not dumpable"))
            #expect(try answer.target.remedy?.contains("CAP_SYS_PTRACE") == true)
        }

        @Test(arguments: ["EPERM", "ENOSYS"])
        func `memory that a filter hides is not a process without code`(error: String) throws {
            let victim = try Victim()
            let inject = ["inject", "--method", "ptrace"] + victim.selection
            let status: Int32 = error == "EPERM" ? 77 : 69
            let launcher = Conditions.denying("read_memory=\(error)")
            let failure = try Report.of(inject, launcher: launcher, status: status).socket.error
            #expect(failure?.code == error)
            #expect(failure?.message.contains("the memory of PID \(victim.pid) cannot be read (\(error))") == true)
            #expect(failure?.remedy?.contains("outside the container, unit or sandbox that filters") == true)
            #expect(failure?.remedy?.contains("or use --method pidfd") == true)
            #expect(try victim.keepalive() == [.untouched])
        }

        @Test func `a filter of its own forbids to suspend another's, also with CAP_SYS_ADMIN`() throws {
            let target = try Echoer([TestProgram.path("victim-odd", .dynamic64), "seccomp"])
            let inject = ["inject", "--method", "ptrace"] + target.selection
            let launcher = Conditions.denying("setresuid=EPERM")
            let failure = try Report.of(inject, launcher: launcher, status: 77).socket.error
            #expect(failure?.message.contains("sockalive runs under a filter itself") == true)
            #expect(failure?.remedy?.contains("CAP_SYS_ADMIN") == false)
            #expect(failure?.remedy?.contains("or use --method pidfd") == true)
            #expect(target.echoes())
            #expect(try Report.of(inject).socket.action == "set")
        }

        @Test(arguments: [
            ("EMFILE", 1, "no descriptor is free"), ("ENOSYS", 69, "a filter or a sandbox hides pidfd_getfd"),
            ("EPERM", 77, "a seccomp filter on sockalive itself forbids pidfd_open"),
            ("EINVAL", 1, "no pidfd of PID"),
        ])
        func `a pidfd that cannot be opened has its own cause`(error: String, status: Int32, words: String) throws {
            let victim = try Victim()
            let inject = ["inject", "--method", "pidfd"] + victim.selection
            let launcher = Conditions.denying("pidfd_open=\(error)")
            let failure = try Report.of(inject, launcher: launcher, status: status).socket.error
            #expect(failure?.code == error)
            #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
        }

        @Test func `ptrace that a filter forbids is not a missing right`() throws {
            let victim = try Victim()
            let inject = ["inject", "--method", "ptrace"] + victim.selection
            let failure = try Report.of(inject, launcher: Conditions.denying("ptrace=EPERM"), status: 77).socket.error
            #expect(failure?.message.contains("a seccomp filter on sockalive itself forbids ptrace") == true)
        }
    }
}

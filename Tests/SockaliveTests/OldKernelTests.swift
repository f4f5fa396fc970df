import Foundation
import Glibc
import Testing

extension ProcessTests {
    /// What older kernels lack, imitated by a filter on `sockalive` itself (`deny-syscalls`).
    @Suite(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
    struct OldKernels {
        /// By the number of the first kernel that has it.
        private static let lacking: [String: [String]] = [
            "4.7": ["waitid_wall=EINVAL"],
            // As on 3.10, for the threads of which waitid(2) without __WALL tells nothing.
            "4.7, threads": ["waitid=EINVAL"],
            "3.11": ["signal_mask=EIO"],
            "3.10": [
                "waitid=EINVAL", "signal_mask=EIO", "suspend_seccomp=EINVAL", "syscall_info=EIO",
                "rseq_configuration=EIO", "rseq=ENOSYS", "pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS",
            ],
            "4.18": [
                "syscall_info=EIO", "rseq_configuration=EIO", "pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS",
            ],
        ]
        private static let kernels = lacking.keys.sorted()

        private func launcher(_ kernel: String) throws -> [String] {
            [TestProgram.path("deny-syscalls")] + (try #require(Self.lacking[kernel])) + ["--"]
        }

        private func inject(_ kernel: String, _ pids: [Int32], idle: Int) throws -> Report {
            let selection = pids.flatMap { ["--pid", "\($0)"] } + ["--any-port"]
            let inject = ["inject", "--method", "ptrace", "--timeout", "25s", "--idle", "\(idle)"] + selection
            return try Report.of(inject, launcher: launcher(kernel))
        }

        // MARK: - Stops and masks

        @Test(arguments: kernels, TestProgram.kinds)
        func `no blocking call returns, and no signal mask changes`(kernel: String, kind: TestProgram.Kind) throws {
            let sleepers = try InjectionSafety.wokenCalls.map { try Sleeper("victim-sleeps", kind, $0) }
            for idle in [101, 102] {
                let report = try inject(kernel, sleepers.map(\.pid), idle: idle)
                #expect(report.sockets.allSatisfy { $0.action == "set" })
                #expect(Set(report.sockets.map(\.pid)).count == sleepers.count)
            }
            for sleeper in sleepers { #expect(sleeper.result() == "ok", "\(sleeper.name)") }
        }

        @Test(arguments: kernels, TestProgram.kinds)
        func `no sleep with a timeout returns early`(kernel: String, kind: TestProgram.Kind) throws {
            let sleepers = try InjectionSafety.timedCalls.map { try Sleeper("victim-sleeps", kind, $0) }
            #expect(try inject(kernel, sleepers.map(\.pid), idle: 101).sockets.allSatisfy { $0.action == "set" })
            for sleeper in sleepers { #expect(sleeper.result(waking: false).hasPrefix("ok "), "\(sleeper.name)") }
        }

        @Test(arguments: kernels, ["threads", "zombie-main", "own-table", "coroutine", "one-coroutine"])
        func `a target echoes, is injected, echoes again`(kernel: String, how: String) throws {
            for kind in [TestProgram.Kind.dynamic64, .static64] {
                let target = try Echoer([TestProgram.path("victim-odd", kind), how])
                #expect(target.echoes())
                for idle in [101, 102, 103] {
                    let report = try Report.of(
                        ["inject", "--method", "ptrace", "--idle", "\(idle)"] + target.selection,
                        launcher: launcher(kernel))
                    #expect(try report.socket.action == "set")
                    #expect(target.echoes())
                }
                #expect(try ProcessTrace(of: target.pid).tracer == "0")
            }
        }

        @Test(arguments: kernels)
        func `a signal every millisecond is handled once, in order`(kernel: String) throws {
            let victims = try TestProgram.kinds.map { try Sleeper("victim-signals", $0, "sleep") }
            for round in 1...10 {
                let report = try inject(kernel, victims.map(\.pid), idle: 100 + round)
                #expect(report.sockets.count == victims.count && report.sockets.allSatisfy { $0.action == "set" })
            }
            for victim in victims {
                let numbers = victim.result().split(separator: " ").compactMap { Int($0) }
                #expect(numbers.count == 4 && numbers[0] == numbers[1] && numbers[0] > 10, "\(victim.name)")
                #expect(numbers.suffix(2) == [0, 0], "\(victim.name)")
            }
        }

        @Test func `a stopped target is set and stays stopped`() throws {
            let target = try Echoer([TestProgram.path("victim-odd", .dynamic64), "threads"])
            #expect(target.echoes())
            kill(target.pid, SIGSTOP)
            let deadline = Deadline(.seconds(10))
            while try !ProcessTrace(of: target.pid).isStopped && deadline.millisecondsLeft > 0 {}
            let inject = ["inject", "--method", "ptrace"] + target.selection
            #expect(try Report.of(inject, launcher: launcher("4.7")).summary.set == 1)
            #expect(try ProcessTrace(of: target.pid).isStopped)
            kill(target.pid, SIGCONT)
            #expect(target.echoes())
        }

        // MARK: - Restartable sequences

        @Test(arguments: [TestProgram.Kind.dynamic64, .static64])
        func `a sequence that nobody can see is not interrupted`(kind: TestProgram.Kind) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), "rseq"])
            #expect(target.echoes())
            for round in 1...20 {
                let inject = ["inject", "--method", "ptrace", "--idle", "\(100 + round)"] + target.selection
                #expect(try Report.of(inject, launcher: launcher("4.18")).socket.action == "set")
                #expect(target.echoes())
            }
        }

        @Test func `a thread that makes no call is refused, and computes on`() throws {
            let sleeper = try Sleeper("victim-sleeps", .dynamic64, "compute")
            let inject = ["inject", "--method", "ptrace", "--pid", "\(sleeper.pid)", "--any-port"]
            let report = try Report.of(inject, launcher: launcher("4.18"), status: 1)
            #expect(report.sockets.count == 2)
            for socket in report.sockets {
                #expect(socket.error?.message.contains("makes no system call") == true)
                #expect(socket.action == "failed")
            }
            #expect(sleeper.result() == "ok")
        }

        /// It would run on, although its user has stopped it.
        @Test func `a process that is stopped outside a call is refused, and stays stopped`() throws {
            let sleeper = try Sleeper("victim-sleeps", .dynamic64, "compute")
            usleep(100_000)  // past the write of its first line
            kill(sleeper.pid, SIGSTOP)
            let deadline = Deadline(.seconds(10))
            while try !ProcessTrace(of: sleeper.pid).isStopped && deadline.millisecondsLeft > 0 {}
            let inject = ["inject", "--method", "ptrace", "--pid", "\(sleeper.pid)", "--any-port"]
            let report = try Report.of(inject, launcher: launcher("4.18"), status: 1)
            #expect(report.sockets.allSatisfy { $0.error?.code == "EBUSY" })
            #expect(report.sockets.first?.error?.remedy?.contains("kill -CONT") == true)
            #expect(try ProcessTrace(of: sleeper.pid).isStopped)
            kill(sleeper.pid, SIGCONT)
            #expect(sleeper.result() == "ok")
        }

        @Test func `another thread is taken that does make calls`() throws {
            let target = try Echoer([TestProgram.path("victim-odd", .dynamic64), "busy-main"])
            #expect(target.echoes())
            let inject = ["inject", "--method", "ptrace"] + target.selection
            #expect(try Report.of(inject, launcher: launcher("4.18")).socket.action == "set")
            #expect(target.echoes())
        }

        // MARK: - What cannot be done there

        /// A refusal, too, has interrupted the call: EINTR from epoll_wait(2) would be the target's to see.
        @Test(arguments: ["epoll_wait", "epoll_wait-timeout", "epoll_pwait", "recv-timeout", "semop", "sigtimedwait"])
        func `before Linux 4_3 a target with a filter is refused, and its call goes on`(call: String) throws {
            let filter = [TestProgram.path("deny-syscalls"), "setresuid=EPERM", "--"]
            let sleeper = try Sleeper("victim-sleeps", .dynamic64, call, launcher: filter)
            let inject = ["inject", "--method", "ptrace", "--pid", "\(sleeper.pid)", "--any-port"]
            for _ in 1...3 {
                let report = try Report.of(
                    inject, launcher: Conditions.denying("suspend_seccomp=EINVAL", "pidfd_getfd=ENOSYS"), status: 69)
                let failure = try #require(report.sockets.first?.error)
                #expect(failure.message.contains("this kernel cannot (Linux 4.3"), "\(failure)")
                #expect(failure.code == "EINVAL")
            }
            #expect(sleeper.result() == "ok")
        }

        @Test(.enabled(if: Machine.isRoot, "only root may suspend a seccomp filter"))
        func `the doctor says that no right helps against a filter`() throws {
            let answer = try DoctorAnswer.of(
                ["--process", "no-such-process"], launcher: Conditions.denying("suspend_seccomp=EINVAL"))
            let check = try answer.check("cap_sys_admin")
            #expect(check.status == "note" && check.message.contains("no right helps"), "\(check)")
        }

        /// The kernel itself gives such a process the release 2.6.N (setarch(8)).
        @Test(
            .enabled(if: Machine.runs(["setarch", "--uname-2.6", "true"]), "the C library needs a newer release"),
            arguments: ["list", "inject", "probe"])
        func `before Linux 3_10 it refuses in one line`(command: String) throws {
            let victim = try Victim()
            let program = try Program.sockalive([command] + victim.selection, launcher: ["setarch", "--uname-2.6"])
            #expect(program.status == 69 && program.output.isEmpty)
            #expect(program.errorLines.count == 1 && program.errors.contains("needs Linux 3.10"), "\(program.errors)")
            #expect(try victim.keepalive() == [.untouched])
            #expect(try victim.echoes())
        }

        @Test(.enabled(if: Program.shipped != nil, "there is no static program (SOCKALIVE_STATIC)"))
        func `without random numbers the time limit holds`() throws {
            let start = ContinuousClock.now
            let program = try Program.$executable.withValue(#require(Program.shipped)) {
                try Program.sockalive(["list", "--timeout", "1s"], launcher: Conditions.denying("getrandom=EAGAIN"))
            }
            #expect(program.status == 1 && program.errors.contains("early in boot"), "\(program.errors)")
            #expect(ContinuousClock.now - start < .seconds(30))
        }

        @Test func `sockets that could not be asked are counted as failed`() throws {
            let victim = try Victim { $0.sessions = 2 }
            let launcher = Conditions.denying("pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS", "ptrace=EPERM")
            let program = try Program.sockalive(["probe", "--no-lock"] + victim.selection, launcher: launcher)
            #expect(program.errors.contains("2 candidates: 0 answered, 0 silent, 2 failed"), "\(program.errors)")
            let report = try Report.of(["probe"] + victim.selection, launcher: launcher, status: 77)
            #expect(report.summary.failed == 2 && report.summary.answered == 0 && report.summary.silent == 0)
        }
    }
}

import Foundation
import Glibc
import Testing

extension ProcessTests {
    @Suite struct Examining {
        /// Matches no process.
        private let nobody = ["--process", "no-such-process"]

        @Test func `every method is tried on a child, and the target is not changed`() throws {
            let victim = try Victim { $0.sessions = 2 }
            let before = try ProcessTrace(of: victim.pid)
            let answer = try DoctorAnswer.of(victim.selection)
            #expect(try answer.trial("pidfd").worked == true)
            #expect(try answer.trial("pidfd").pausedMicroseconds == 0)
            #expect(try answer.trial("ptrace").worked == (Machine.injectsByPtrace ? true : nil))
            if Machine.injectsByPtrace { #expect(try #require(answer.trial("ptrace").pausedMicroseconds) > 0) }
            #expect(answer.checks.contains { $0.name == "try_sock_diag" })
            let target = try answer.target
            #expect(target.pid == victim.pid && target.process == "beremote" && target.exe == victim.executable)
            #expect(target.status == "ok" && target.method == "pidfd" && target.sockets == 2)
            #expect(target.tracer == nil && target.seccomp == 0)
            #expect(try victim.keepalive() == [.untouched, .untouched])
            #expect(try ProcessTrace(of: victim.pid) == before)
            #expect(try victim.echoes())
        }

        @Test func `without a target it says so, and there is no problem`() throws {
            let answer = try DoctorAnswer.of(nobody)
            #expect(answer.targets.isEmpty)
            #expect(try answer.check("targets").status == "note")
            #expect(try answer.check("targets").message.contains("no-such-process"))
        }

        @Test func `the sysctl is compared with the given firewall timeout`() throws {
            let short = try DoctorAnswer.of(nobody + ["--firewall-timeout", "4s"])
            #expect(short.firewallTimeout == 4)
            #expect(try short.check("keepalive").status == "note")
            #expect(try DoctorAnswer.of(nobody + ["--firewall-timeout", "1000h"]).check("keepalive").status == "ok")
        }

        @Test(.enabled(if: Machine.isRoot, "only root may run sockalive as another user"))
        func `another user gets a problem and a remedy for a process without access`() throws {
            let victim = try Victim()
            let answer = try DoctorAnswer.of(victim.selection, launcher: Conditions.asNobody, status: 1)
            #expect(try answer.target.status == "problem")
            #expect(try answer.target.remedy?.contains("CAP_SYS_PTRACE") == true)
            #expect(try answer.check("cap_sys_ptrace").status == "note")
            #expect(try answer.trial("pidfd").worked == true)
        }

        @Test(.enabled(if: Machine.isRoot, "only root may hand out capabilities"))
        func `CAP_SYS_PTRACE alone does not open another's descriptors, and the remedy names what is missing`() throws {
            let victim = try Victim()
            let launcher = [
                "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all,+sys_ptrace",
                "--ambient-caps=-all,+sys_ptrace",
            ]
            let answer = try DoctorAnswer.of(victim.selection, launcher: launcher, status: 1)
            #expect(try answer.check("cap_sys_ptrace").status == "ok")
            #expect(try answer.target.remedy?.contains("CAP_DAC_READ_SEARCH") == true)
            let listed = try Report.of(["list"] + victim.selection, launcher: launcher, status: 77)
            #expect(listed.sockets.first?.error?.remedy?.contains("CAP_DAC_READ_SEARCH") == true)
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `on an older kernel the method is ptrace`() throws {
            let victim = try Victim()
            let answer = try DoctorAnswer.of(victim.selection, launcher: Conditions.withoutPidfd)
            #expect(try answer.check("pidfd").status == "note")
            // This kernel is new, and a filter hides the calls.
            #expect(try answer.check("pidfd").message.contains("a filter or a sandbox hides pidfd_open"))
            #expect(try answer.check("seccomp").status == "note")
            #expect(try answer.trial("pidfd").worked == false)
            #expect(try answer.trial("ptrace").worked != false)
            #expect(try answer.target.method == "ptrace")
            #expect(try answer.target.status == "ok")
        }

        @Test func `if nothing works, every method is a problem, and the filter is named`() throws {
            let victim = try Victim()
            let launcher = Conditions.denying("pidfd_getfd=EPERM", "ptrace=EPERM")
            let answer = try DoctorAnswer.of(victim.selection, launcher: launcher, status: 1)
            #expect(answer.trials.allSatisfy { $0.worked != true })
            let name = Machine.injectsByPtrace ? "try_ptrace" : "try_pidfd"
            #expect(try answer.check(name).status == "problem")
            #expect(try answer.check(name).message.contains("a seccomp filter on sockalive itself forbids"))
            #expect(try answer.check(name).remedy?.contains("filter") == true)
            #expect(try answer.target.status == "problem")
        }

        @Test func `a traced target is shown with its tracer, a problem for ptrace only`() throws {
            let victim = try Victim()
            let tracer = try Child([TestProgram.path("hold-traced"), "\(victim.pid)"])
            _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
            let answer = try DoctorAnswer.of(victim.selection)
            #expect(try answer.target.tracer?.pid == tracer.pid)
            #expect(try answer.target.tracer?.process == "hold-traced")
            #expect(try answer.target.status == "ok")
            guard Machine.injectsByPtrace else { return }
            let old = try DoctorAnswer.of(victim.selection, launcher: Conditions.withoutPidfd, status: 1)
            #expect(try old.target.remedy?.contains("detach hold-traced (PID \(tracer.pid))") == true)
        }

        @Test func `a stopped target is noted, and stays stopped`() throws {
            let victim = try Victim()
            kill(victim.pid, SIGSTOP)
            let deadline = Deadline(.seconds(10))
            while try !ProcessTrace(of: victim.pid).isStopped && deadline.millisecondsLeft > 0 {}
            let target = try DoctorAnswer.of(victim.selection).target
            #expect(target.state == "stopped" && target.status == "note")
            #expect(target.remedy?.contains("kill -CONT \(victim.pid)") == true)
            #expect(try ProcessTrace(of: victim.pid).isStopped)
            kill(victim.pid, SIGCONT)
            #expect(try victim.echoes())
        }

        @Test(.enabled(if: Machine.builds32Bit, "gcc -m32 does not work here"))
        func `a 32-bit target is recognized`() throws {
            let folder = try TemporaryFolder()
            let program = folder.path("small")
            try Machine.build32Bit(program)
            let child = try Child([program])
            // Until exec, it is still a copy of this process.
            let deadline = Deadline(.seconds(10))
            var target = try DoctorAnswer.of(["--pid", "\(child.pid)"]).target
            while target.exe != program && deadline.millisecondsLeft > 0 {
                target = try DoctorAnswer.of(["--pid", "\(child.pid)"]).target
            }
            #expect(target.bits == 32)
        }

        @Test func `the text fits 100 columns, and has no color in a pipe`() throws {
            let victim = try Victim { $0.name = "be\u{1b}[31m" }
            for launcher in [[], Conditions.denying("pidfd_getfd=EPERM", "ptrace=EPERM")] {
                let program = try Program.sockalive(["doctor"] + victim.selection, launcher: launcher)
                let lines = program.output.split(separator: "\n", omittingEmptySubsequences: false)
                #expect(lines.allSatisfy { $0.count <= 100 })
                #expect(!program.output.contains("\u{1b}"))
                #expect(program.output.contains("\(victim.pid) be\\x1b[31m"))
                #expect(program.errors == "")
            }
        }

        @Test func `quiet prints problems only`() throws {
            let quiet = try Program.sockalive(["doctor", "--quiet"] + nobody)
            #expect(quiet.status == 0 && quiet.output == "" && quiet.errors == "")
            let denied = try Program.sockalive(
                ["doctor", "--quiet"] + nobody, launcher: Conditions.denying("pidfd_getfd=EPERM", "ptrace=EPERM"))
            #expect(denied.status == 1 && denied.output == "")
            #expect(!denied.errorLines.isEmpty && denied.errorLines.allSatisfy { $0.hasPrefix("sockalive: try_") })
        }

        @Test func `a report that cannot be written is a failure`() throws {
            #expect(try Program.sockalive(["doctor"] + nobody, output: .closed).status == 1)
            #expect(try Program.sockalive(["doctor", "--json"] + nobody, output: .closed).status == 1)
        }

        @Test(.enabled(if: Machine.makesNamespaces, "unshare cannot make a PID namespace here"))
        func `no child is left, even if the doctor is killed, and a container is recognized`() throws {
            // Only the shell's own processes stay.
            let script = """
                set -e; ip link set lo up
                for delay in 0 0.01 0.02 0.03 0.05; do
                    '\(Program.path("sockalive"))' doctor >/dev/null 2>&1 & sleep $delay; kill -9 $! || true; wait $! || true
                done
                '\(Program.path("sockalive"))' doctor --json | grep 'PID namespace' >/dev/null && echo seen
                sleep 0.3
                grep -l 'doctor-targe[t]' /proc/[0-9]*/cmdline || echo none
                """
            let options = Machine.privateUser + ["--net", "--pid", "--fork", "--mount-proc"]
            let program = try Program.run(["unshare"] + options + ["bash", "-c", script])
            #expect(program.output == "seen\nnone\n", "\(program.errors)")
        }
    }
}

import Foundation
import Glibc
import Testing

extension ProcessTests {
    @Suite(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
    struct InjectionSafety {
        // MARK: no interrupted sleep

        /// Every call of `victim-sleeps`, except those that end by their own timeout.
        static let wokenCalls = [
            "read-socket", "read-pipe", "recv-timeout", "accept", "poll", "poll-timeout", "ppoll", "ppoll-masked",
            "pselect-masked", "select", "epoll_wait", "epoll_wait-timeout", "epoll_pwait", "futex", "semop",
            "semtimedop", "msgrcv", "sigtimedwait", "pause", "sigsuspend", "epoll_wait-handler", "waitpid",
            "accept-timeout", "preadv2-timeout", "recvmmsg-timeout", "send-timeout", "ppoll-read-only",
            "pselect-read-only", "select-sticky",
        ]

        static let timedCalls = [
            "nanosleep", "poll-end", "epoll_wait-end", "recv-timeout-end", "select-end", "futex-end",
            "sigtimedwait-end",
        ]

        @Test(arguments: TestProgram.kinds)
        func `no blocking call returns during five injections`(kind: TestProgram.Kind) throws {
            let sleepers = try Self.wokenCalls.map { try Sleeper("victim-sleeps", kind, $0) }
            for round in 1...5 {
                #expect(try inject(into: sleepers.map(\.pid), round) == sleepers.count)
            }
            for sleeper in sleepers {
                #expect(sleeper.result() == "ok", "\(sleeper.name)")
            }
        }

        @Test(arguments: TestProgram.kinds)
        func `no sleep with a timeout returns early`(kind: TestProgram.Kind) throws {
            let sleepers = try Self.timedCalls.map { try Sleeper("victim-sleeps", kind, $0) }
            #expect(try inject(into: sleepers.map(\.pid), 1) == sleepers.count)
            for sleeper in sleepers {
                #expect(sleeper.result(waking: false).hasPrefix("ok "), "\(sleeper.name)")
            }
        }

        /// The number of processes that had both ends of their connection set.
        private func inject(into pids: [Int32], _ round: Int) throws -> Int {
            let selection = pids.flatMap { ["--pid", "\($0)"] } + ["--any-port"]
            let report = try Report.of(["inject", "--method", "ptrace", "--idle", "\(100 + round)"] + selection)
            #expect(report.sockets.allSatisfy { $0.method == "ptrace" && $0.action == "set" })
            return Set(report.sockets.filter { $0.keepalive?.idle == 100 + round }.map(\.pid)).count
        }

        // MARK: no signal lost

        @Test func `a signal every millisecond for 200 injections is handled once, in order`() throws {
            // Only one spins, for a machine with two processors.
            let sleeping = try (TestProgram.kinds + TestProgram.kinds).dropLast()
                .map { try Sleeper("victim-signals", $0, "sleep") }
            let victims = try sleeping + [Sleeper("victim-signals", .dynamic64, "spin")]
            let rounds = 200 / victims.count
            for round in 1...rounds {
                #expect(try inject(into: victims.map(\.pid), round) == victims.count)
            }
            for victim in victims {
                // "sent N handled N wrong 0 woken 0"
                let numbers = victim.result().split(separator: " ").compactMap { Int($0) }
                #expect(numbers.count == 4 && numbers[0] == numbers[1] && numbers[0] > rounds, "\(victim.name)")
                #expect(numbers.suffix(2) == [0, 0], "\(victim.name)")
            }
        }

        /// A signal between the seize and the interrupt stops the thread before its delivery. The injector delivers it.
        /// If the injector dies at its third request, the kernel still has the signal.
        @Test(arguments: TestProgram.kinds, [nil, "3"])
        func `a signal that comes first is delivered, even if the injector dies`(
            kind: TestProgram.Kind, death: String?
        ) throws {
            let victim = try Sleeper("victim-signals", kind, "sleep")
            var environment = ["LD_PRELOAD": "\(TestProgram.folder)/die-at.so", "SEIZE_REST": "5000"]
            environment["DIE_BEFORE"] = death
            environment.merge(ProcessInfo.processInfo.environment) { own, _ in own }
            for round in 1...3 {
                let inject = ["inject", "--method", "ptrace", "--idle", "\(100 + round)", "--no-lock"]
                let program = try Program.sockalive(
                    inject + ["--pid", "\(victim.pid)", "--any-port"], environment: environment)
                #expect((program.status == 0) == (death == nil))
            }
            let numbers = victim.result().split(separator: " ").compactMap { Int($0) }
            #expect(numbers.count == 4 && numbers[0] == numbers[1] && numbers[0] >= 15, "\(numbers)")
            #expect(numbers.suffix(2) == [0, 0], "\(numbers)")
        }

        /// After a stop the kernel continues with restart_syscall(2), from a block that rt_sigreturn drops.
        @Test(arguments: [TestProgram.Kind.dynamic64, .static64], ["poll", "poll-timeout"])
        func `a sleep that was stopped before survives a dead injector, too`(
            kind: TestProgram.Kind, call: String
        ) throws {
            let sleeper = try Sleeper("victim-sleeps", kind, call)
            var environment = ProcessInfo.processInfo.environment
            environment["LD_PRELOAD"] = "\(TestProgram.folder)/die-at.so"
            for request in 4...14 {
                kill(sleeper.pid, SIGSTOP)
                let deadline = Deadline(.seconds(10))
                while try !ProcessTrace(of: sleeper.pid).isStopped && deadline.millisecondsLeft > 0 {}
                kill(sleeper.pid, SIGCONT)
                usleep(2000)
                environment["DIE_AFTER"] = "\(request)"
                let inject = ["inject", "--method", "ptrace", "--idle", "\(100 + request)", "--no-lock", "--any-port"]
                let program = try Program.sockalive(inject + ["--pid", "\(sleeper.pid)"], environment: environment)
                #expect(program.status != 0)
            }
            #expect(sleeper.result() == "ok")
        }

        // MARK: every kind of target

        @Test(arguments: TestProgram.kinds, ["plain", "threads", "coroutine", "one-coroutine", "deep", "rseq"])
        func `a target echoes, is injected, echoes again`(kind: TestProgram.Kind, how: String) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), how])
            try expectUntouched(target)
        }

        /// The main thread has exited; or the echoing thread has its own table (unshare(2), CLONE_FILES), and the main
        /// thread's table does not have the socket.
        @Test(arguments: TestProgram.kinds, ["zombie-main", "own-table"])
        func `a socket outside the main thread's table is found in another table`(
            kind: TestProgram.Kind, how: String
        ) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), how])
            #expect(target.echoes())
            for (method, taken) in [("auto", "pidfd"), ("ptrace", "ptrace"), ("pidfd", "pidfd")] {
                let report = try Report.of(["inject", "--off", "--method", method] + target.selection)
                #expect(report.summary.failed == 0 && report.summary.candidates == 1)
                let inject = try Report.of(["inject", "--method", method] + target.selection)
                let socket = try inject.socket
                #expect(inject.summary.set == 1 && socket.method == taken)
                #expect(target.echoes())
            }
        }

        /// The main thread has exited, and no other one lives for longer than some milliseconds.
        @Test(arguments: TestProgram.kinds, ["ptrace", "pidfd"])
        func `a thread that ends gives way to another`(kind: TestProgram.Kind, method: String) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), "relay"])
            #expect(target.echoes())
            for round in 1...10 {
                for (off, action) in [(["--off"], round == 1 ? "unchanged" : "set"), ([], "set")] {
                    let report = try Report.of(["inject", "--method", method] + off + target.selection)
                    #expect(report.summary.failed == 0 && report.summary.candidates == 1, "\(report)")
                    #expect(try report.socket.action == action && report.socket.method == method)
                }
                #expect(target.echoes())
            }
        }

        /// If descriptors can be borrowed, no thread is stopped except on request.
        @Test(arguments: ["zombie-main", "own-table"], ["auto", "pidfd"])
        func `before Linux 6_9 another thread's table is refused, and no thread is stopped`(
            how: String, method: String
        ) throws {
            let target = try Echoer([TestProgram.path("victim-odd", .dynamic64), how])
            #expect(target.echoes())
            let refused = try Program.sockalive(
                ["inject", "--method", method, "--no-lock"] + target.selection,
                launcher: Conditions.denying("pidfd_thread=EINVAL"))
            #expect(refused.status == 69, "\(refused.errors)")
            #expect(refused.errors.contains("PIDFD_THREAD"), "\(refused.errors)")
            #expect(refused.errors.contains("--method ptrace reaches it"), "\(refused.errors)")
            #expect(target.echoes())
        }

        @Test(
            .enabled(if: Machine.isRoot, "only root may suspend a seccomp filter"), arguments: TestProgram.kinds)
        func `a seccomp filter that kills is suspended`(kind: TestProgram.Kind) throws {
            try expectUntouched(try Echoer([TestProgram.path("victim-odd", kind), "seccomp"]))
        }

        /// PR_SET_SYSCALL_USER_DISPATCH, as emulators use it: a call from libc's code would cause a SIGSYS.
        @Test(arguments: [TestProgram.Kind.dynamic64, .static64])
        func `a target with syscall user dispatch is refused`(kind: TestProgram.Kind) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), "dispatch"])
            #expect(target.echoes())
            let refused = try Report.of(["inject", "--method", "ptrace"] + target.selection, status: 69)
            #expect(try refused.socket.error?.message.contains("PR_SET_SYSCALL_USER_DISPATCH") == true)
            #expect(target.echoes())
            #expect(try Report.of(["inject", "--method", "pidfd"] + target.selection).socket.action == "set")
        }

        @Test(arguments: TestProgram.kinds)
        func `the child of vfork is set, and its parent keeps waiting`(kind: TestProgram.Kind) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), "vfork"])
            #expect(target.echoes())
            let path = "/proc/\(target.pid)/task/\(target.pid)/children"
            let child = try String(contentsOfFile: path, encoding: .utf8).split(separator: " ")[0]
            let inject = ["inject", "--method", "ptrace", "--idle", "600", "--port", "\(target.port)"]
            try expectSet(try Report.of(inject + ["--pid", "\(child)"]), idle: 600)
            #expect(target.echoes())
        }

        @Test(arguments: TestProgram.kinds)
        func `a stopped target is set and stays stopped`(kind: TestProgram.Kind) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), "threads"])
            #expect(target.echoes())
            kill(target.pid, SIGSTOP)
            let deadline = Deadline(.seconds(10))
            while try !ProcessTrace(of: target.pid).isStopped && deadline.millisecondsLeft > 0 {}
            #expect(try Report.of(["inject", "--method", "ptrace"] + target.selection).summary.set == 1)
            #expect(try ProcessTrace(of: target.pid).isStopped)
            kill(target.pid, SIGCONT)
            #expect(target.echoes())
        }

        @Test(arguments: TestProgram.kinds)
        func `a descriptor of another file is never set`(kind: TestProgram.Kind) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), "swap"])
            for round in 1...5 {
                let inject = ["inject", "--method", "ptrace", "--idle", "\(100 + round)"] + target.selection
                let program = try Program.sockalive(inject + ["--no-lock", "--json"])
                for socket in try Report(json: program.output).sockets where socket.action == "failed" {
                    #expect(socket.error?.message.hasPrefix("fd changed") == true)
                }
                #expect(target.echoes())
            }
        }

        private func expectUntouched(_ target: Echoer, sourceLocation: SourceLocation = #_sourceLocation) throws {
            #expect(target.echoes(), sourceLocation: sourceLocation)
            for idle in [1000, 2000] {
                let inject = ["inject", "--method", "ptrace", "--idle", "\(idle)"] + target.selection
                try expectSet(try Report.of(inject, sourceLocation: sourceLocation), idle: idle)
                #expect(target.echoes(), sourceLocation: sourceLocation)
            }
            #expect(try ProcessTrace(of: target.pid).tracer == "0", sourceLocation: sourceLocation)
        }

        /// One socket was set, and the kernel gives the same values.
        private func expectSet(_ report: Report, idle: Int) throws {
            let socket = try report.socket
            #expect(socket.action == "set")
            let descriptor = try #require(socket.fd)
            let found = try SocketKeepalive.read(pid: socket.pid, descriptors: [descriptor])
            #expect(found.map(\.enabled) == [true] && found.map(\.idle) == [idle])
        }

        // MARK: programs of other languages

        @Test(.enabled(if: Machine.has("python3"), "there is no python3 here"))
        func `Python continues`() throws {
            let program = """
                import os, socket
                server = socket.create_server(("127.0.0.1", 0))
                print(os.getpid(), server.getsockname()[1], flush=True)
                connection = server.accept()[0]
                while data := connection.recv(100): connection.send(data)
                """
            try expectUntouched(try Echoer(["python3", "-c", program]))
        }

        @Test(.enabled(if: Machine.has("node"), "there is no node here"))
        func `Node continues`() throws {
            let program = """
                const server = require("net").createServer(s => s.pipe(s))
                server.listen(0, "127.0.0.1", () => console.log(process.pid, server.address().port))
                """
            try expectUntouched(try Echoer(["node", "-e", program]))
        }

        @Test(.enabled(if: Machine.has("java"), "there is no java here"))
        func `Java continues`() throws {
            let program = """
                import java.net.*;
                class Echo {
                    public static void main(String[] arguments) throws Exception {
                        var server = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
                        System.out.println(ProcessHandle.current().pid() + " " + server.getLocalPort());
                        var connection = server.accept();
                        connection.getInputStream().transferTo(connection.getOutputStream());
                    }
                }
                """
            let folder = try TemporaryFolder()
            try program.write(toFile: folder.path("Echo.java"), atomically: false, encoding: .utf8)
            try expectUntouched(try Echoer(["java", folder.path("Echo.java")]))
        }

        @Test(.enabled(if: Machine.has("go"), "there is no Go compiler here"))
        func `Go continues`() throws {
            let program = """
                package main
                import ("fmt"; "io"; "net"; "os")
                func main() {
                    listener, _ := net.Listen("tcp4", "127.0.0.1:0")
                    fmt.Println(os.Getpid(), listener.Addr().(*net.TCPAddr).Port)
                    connection, _ := listener.Accept()
                    io.Copy(struct{ io.Writer }{connection}, struct{ io.Reader }{connection})
                }
                """
            let folder = try TemporaryFolder()
            let source = folder.path("main.go")
            try program.write(toFile: source, atomically: false, encoding: .utf8)
            let built = try Program.run(["go", "build", "-o", folder.path("echo"), source], deadline: .seconds(120))
            try #require(built.status == 0, "\(built.errors)")
            // Go enables keepalive on accepted connections, with its own times.
            try expectUntouched(try Echoer([folder.path("echo")]))
        }

        // MARK: a killed injector

        @Test(.enabled(if: TestProgram.makesEveryKind, "gcc makes no 32-bit programs here (gcc-multilib)"))
        func `torture harms no target`() throws {
            let environment = ProcessInfo.processInfo.environment.merging(
                ["SOCKALIVE": Program.path("sockalive"), "VICTIMS": TestProgram.folder]) { $1 }
            let torture = try Program.run(
                [TestProgram.script("Torture/torture.sh"), "20"], environment: environment, deadline: .seconds(240))
            #expect(torture.status == 0, "\(torture.output)\(torture.errors)")
            #expect(torture.output.contains("harmed in all 0 of"))
        }
    }
}

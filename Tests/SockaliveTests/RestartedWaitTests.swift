import Foundation
import Testing

/// A stop makes some waits begin anew. It is done once, to the thread that loses nothing, and is told.
extension ProcessTests {
    @Suite(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
    struct RestartedWaits {
        @Test(arguments: TestProgram.kinds) func `a wait that begins anew is told`(kind: TestProgram.Kind) throws {
            let calls: [(String, String?, Double?)] = [
                ("epoll_wait-timeout", "epoll_wait", 60), ("sigtimedwait", "sigtimedwait", 60),
                ("semtimedop", "semtimedop", 60), ("recv-timeout", "SO_RCVTIMEO", nil), ("epoll_wait", nil, nil),
                ("accept-timeout", "SO_RCVTIMEO", nil), ("preadv2-timeout", "SO_RCVTIMEO", nil),
                ("send-timeout", "SO_SNDTIMEO", nil), ("recvmmsg-timeout", "recvmmsg", 60),
                ("ppoll-read-only", "ppoll", 60), ("pselect-read-only", "select", 60), ("select-sticky", "select", 60),
                ("poll-timeout", nil, nil), ("futex", nil, nil), ("read-socket", nil, nil), ("select", nil, nil),
                ("ppoll", nil, nil), ("accept", nil, nil),
            ]
            let rings: [(String, String?, Double?)] = [("io_uring-timeout", "io_uring_enter", 60)]
            for (call, name, seconds) in calls + (Machine.hasTimedRings ? rings : []) {
                let sleeper = try Sleeper("victim-sleeps", kind, call)
                let deadline = Deadline(.seconds(10))
                while try String(contentsOfFile: "/proc/\(sleeper.pid)/syscall", encoding: .utf8) == "running\n",
                    deadline.millisecondsLeft > 0
                {}
                let inject = ["inject", "--method", "ptrace", "--any-port", "--pid", "\(sleeper.pid)"]
                let sockets = try Report.of(inject).sockets
                #expect(sockets.count == 2)
                for socket in sockets {
                    #expect(socket.restartedWait?.call == name, "\(sleeper.name)")
                    #expect(socket.restartedWait?.seconds == seconds, "\(sleeper.name)")
                }
                let verbose = try Program.sockalive(inject + ["--no-lock", "--verbose", "--off"]).errors
                #expect(verbose.contains("begins anew") == (name != nil), "\(verbose)")
                #expect(sleeper.result() == "ok", "\(sleeper.name)")
            }
        }

        /// Two threads: one waits for ten minutes in epoll_wait, the other for data.
        @Test(.enabled(if: Machine.has("python3"), "python3 is the target"), arguments: [true, false])
        func `the thread that loses nothing is held`(hasOther: Bool) throws {
            let script = """
                import os, select, socket, threading
                listener = socket.create_server(("127.0.0.1", 0))
                def wait():
                    select.epoll().poll(600)
                def echo():
                    end = listener.accept()[0]
                    while \(hasOther ? "True" : "False"):
                        end.sendall(end.recv(9))
                    end.sendall(end.recv(9))
                    select.epoll().poll(600)
                threading.Thread(target=echo, daemon=True).start()
                print(os.getpid(), listener.getsockname()[1], flush=True)
                wait()
                """
            let target = try Echoer(["python3", "-c", script])
            #expect(target.echoes())
            // Both threads are back in their waits.
            usleep(100_000)
            let socket = try Report.of(["inject", "--method", "ptrace"] + target.selection).socket
            #expect(socket.action == "set" && socket.pausedMicroseconds > 0)
            #expect(socket.restartedWait == (hasOther ? nil : .init(call: "epoll_wait", seconds: 600)))
            if hasOther { #expect(target.echoes()) }
        }

        /// A stop makes a send(2) that has sent a part return that part. Two threads: the first one sends eight megabytes
        /// that nobody reads yet, and the other waits for data.
        @Test(.enabled(if: Machine.has("python3"), "python3 is the target"))
        func `a thread that has sent a part is not held where another one waits`() throws {
            let script = """
                import os, socket, threading
                listener = socket.create_server(("127.0.0.1", 0))
                ends = socket.socketpair()
                size = 8 << 20
                sent = []
                done = threading.Event()
                def echo():
                    end = listener.accept()[0]
                    end.sendall(end.recv(9))
                    byte = end.recv(9)
                    left = size
                    while left and not (done.is_set() and size - left >= sent[0]):
                        left -= len(ends[1].recv(65536))
                    done.wait()
                    end.sendall(byte if sent[0] == size else b"!")
                    end.recv(9)
                threading.Thread(target=echo, daemon=True).start()
                print(os.getpid(), listener.getsockname()[1], flush=True)
                sent.append(ends[0].send(bytes(size)))
                done.set()
                threading.Event().wait()
                """
            let target = try Echoer(["python3", "-c", script])
            #expect(target.echoes())
            usleep(100_000)
            let socket = try Report.of(["inject", "--method", "ptrace"] + target.selection).socket
            #expect(socket.action == "set" && socket.pausedMicroseconds > 0)
            #expect(target.echoes())
        }

        /// Runs come much more often than the wait is long. If each began it anew, it would not end before them.
        @Test func `under runs that come again and again a wait ends when it is due`() throws {
            let folder = try TemporaryFolder()
            let start = ContinuousClock.now
            func seconds() -> Double { (ContinuousClock.now - start) / .seconds(1) }
            let sleeper = try Sleeper("victim-sleeps", .dynamic64, "epoll_wait-end")
            let inject = [
                "inject", "--any-port", "--pid", "\(sleeper.pid)", "--lock", folder.path("run.lock"), "--quiet",
            ]
            func run() throws {
                _ = try Program.sockalive(inject, launcher: Conditions.withoutPidfd)
            }
            try run()
            let first = seconds()
            while seconds() < first + 8 { try run() }
            let words = sleeper.result(waking: false).split(separator: " ")
            #expect(words.first == "ok")
            // Late once, by what had passed of it.
            let end = try #require(words.last.flatMap { Double($0) })
            #expect(end >= 1.5 && end < first + 1.5 + 5, "\(end) s, first run done at \(first) s")
        }
    }
}

import Testing

extension ProcessTests {
    @Suite struct Reaching {
        @Test func `auto borrows the descriptor if it can`() throws {
            let victim = try Victim()
            #expect(try Report.of(["inject"] + victim.selection).socket.method == "pidfd")
        }

        @Test(
            .enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"),
            arguments: [
                Conditions.withoutPidfd,
                Conditions.denying("pidfd_getfd=ENOSYS"),
                // The error of a container's filter that does not know the call.
                Conditions.denying("pidfd_getfd=EPERM"),
            ])
        func `on an older kernel auto does all the work by ptrace`(launcher: [String]) throws {
            let victim = try Victim { $0.sessions = 2 }
            let before = try ProcessTrace(of: victim.pid)
            func run(_ arguments: [String]) throws -> Report {
                try Report.of(arguments + victim.selection, launcher: launcher)
            }
            // A listing stops nobody, and the socket tables do not tell more.
            #expect(try run(["list"]).sockets.map(\.keepalive) == [.offByTable, .offByTable])
            #expect(
                try run(["list", "--method", "ptrace"]).sockets.map(\.keepalive)
                    == [.init(.untouched), .init(.untouched)])
            #expect(try run(["inject", "--dry-run"]).sockets.map(\.action) == ["would_set", "would_set"])
            #expect(try victim.keepalive() == [.untouched, .untouched])
            let report = try run(["inject"])
            #expect(report.sockets.map(\.action) == ["set", "set"])
            #expect(report.sockets.map(\.method) == ["ptrace", "ptrace"])
            #expect(try victim.keepalive() == [.forOneHour, .forOneHour])
            #expect(try run(["inject"]).summary.unchanged == 2)
            #expect(try run(["inject", "--off"]).summary.set == 2)
            #expect(try victim.keepalive().map(\.enabled) == [false, false])
            #expect(try ProcessTrace(of: victim.pid) == before)
            #expect(try victim.echoes())
        }

        @Test func `without ptrace, too, it is unsupported, and the message says so`() throws {
            let victim = try Victim()
            let launcher = Conditions.denying("pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS", "ptrace=ENOSYS")
            try expectRefusal(victim, launcher, status: 69, code: "ENOSYS", words: "kernel")
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `with ptrace forbidden, too, permission is missing, and the message says so`() throws {
            let victim = try Victim()
            let launcher = Conditions.denying("pidfd_open=ENOSYS", "pidfd_getfd=ENOSYS", "ptrace=EPERM")
            try expectRefusal(victim, launcher, status: 77, code: "EPERM", words: "permission")
        }

        @Test func `pidfd alone is refused by an older kernel`() throws {
            let victim = try Victim()
            try expectRefusal(
                victim, Conditions.withoutPidfd, method: "pidfd", status: 69, code: "ENOSYS", words: "pidfd_getfd")
        }

        private func expectRefusal(
            _ victim: Victim, _ launcher: [String], method: String = "auto", status: Int32, code: String, words: String
        ) throws {
            let inject = ["inject", "--method", method] + victim.selection
            let socket = try Report.of(inject, launcher: launcher, status: status).socket
            #expect(socket.action == "failed")
            #expect(socket.error?.code == code)
            let program = try Program.sockalive(inject + ["--no-lock"], launcher: launcher)
            #expect(program.status == status)
            #expect(program.errors.contains(words))
            #expect(try victim.keepalive() == [.untouched])
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `a traced process is left alone, and its tracer is named`() throws {
            let victim = try Victim()
            let tracer = try Child([TestProgram.path("hold-traced"), "\(victim.pid)"])
            _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
            let inject = ["inject", "--method", "ptrace"] + victim.selection
            let failure = try #require(try Report.of(inject, status: 77).socket.error)
            #expect(failure.code == "EPERM")
            #expect(failure.message.contains("hold-traced (PID \(tracer.pid))"))
            #expect(try victim.keepalive() == [.untouched])
            // Borrowing needs no tracing.
            #expect(try Report.of(["inject"] + victim.selection).socket.action == "set")
            #expect(try victim.echoes())
        }

        @Test(
            .enabled(if: Machine.isRoot, "only root may run sockalive as another user"),
            arguments: ["list", "inject"])
        func `another user is told that permission is missing, and the remedy`(command: String) throws {
            let victim = try Victim()
            let arguments = [command] + victim.selection
            let program = try Program.sockalive(arguments, launcher: Conditions.asNobody)
            #expect(program.status == 77)
            #expect(program.errors.contains("run as root or with CAP_SYS_PTRACE"))
            let report = try Report.of(arguments, launcher: Conditions.asNobody, status: 77)
            let sessions = report.sockets.filter { $0.local.port == victim.sessions[0].localPort }
            #expect(sessions.count == 1)
            for socket in sessions {
                #expect(socket.pid == victim.pid)
                #expect(["EACCES", "EPERM"].contains(socket.error?.code))
                #expect(socket.error?.remedy?.contains("CAP_SYS_PTRACE") == true)
                #expect(socket.keepalive == nil)
            }
            #expect(try victim.keepalive() == [.untouched])
        }
    }
}

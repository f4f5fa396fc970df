import Testing

extension ProcessTests {
    /// Every exit code that `list` and `inject` can return.
    @Suite struct ExitCodes {
        @Test func `0: every candidate is as wanted`() throws {
            let victim = try Victim()
            #expect(try Program.sockalive(["list"] + victim.selection).status == 0)
            #expect(try Program.sockalive(["inject", "--no-lock"] + victim.selection).status == 0)
            #expect(try Program.sockalive(["list", "--check"] + victim.selection).status == 0)
        }

        @Test(arguments: ["list", "inject"]) func `0: no candidate`(command: String) throws {
            let victim = try Victim()
            let program = try Program.sockalive([command, "--pid", "\(victim.pid)", "--port", "1"] + noLock(command))
            #expect(program.status == 0)
            #expect(program.output == "")
            #expect(program.errors.contains("looked for PID \(victim.pid)"))
        }

        @Test func `1: list --check and a socket that is not protected`() throws {
            let victim = try Victim()
            #expect(try Program.sockalive(["list", "--check"] + victim.selection).status == 1)
        }

        @Test(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
        func `1: some candidate could not be set`() throws {
            let (traced, free) = (try Victim(), try Victim())
            let tracer = try Child([TestProgram.path("hold-traced"), "\(traced.pid)"])
            _ = try tracer.words(after: "tracing", Deadline(.seconds(10)))
            let report = try Report.of(
                ["inject", "--method", "ptrace"] + traced.selection + free.selection, status: 1)
            #expect(report.summary.set == 1)
            #expect(report.summary.failed == 1)
            #expect(try traced.keepalive() == [.untouched])
            #expect(try free.keepalive() == [.forOneHour])
        }

        @Test(arguments: [Child.Output.closed, .broken], [[], ["--json"]])
        func `1: standard output is closed, and the work is done nevertheless`(
            output: Child.Output, form: [String]
        ) throws {
            let victim = try Victim()
            let program = try Program.sockalive(["inject", "--no-lock"] + form + victim.selection, output: output)
            #expect(program.status == 1)
            #expect(program.errors.contains("standard output"))
            #expect(try victim.keepalive() == [.forOneHour])
        }

        @Test(arguments: methods) func `1: no stream is open, and no message is misdirected`(method: String) throws {
            let victim = try Victim()
            let launcher = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"]
            let inject = ["inject", "--no-lock", "--verbose", "--method", method] + victim.selection
            #expect(try Program.sockalive(inject, launcher: launcher).status == 1)
            #expect(try victim.keepalive() == [.forOneHour])
            #expect(try victim.echoes())
        }

        @Test func `3: a candidate is required and there is none`() throws {
            let victim = try Victim()
            let none = ["inject", "--no-lock", "--require", "--pid", "\(victim.pid)", "--port", "1"]
            #expect(try Program.sockalive(none).status == 3)
            #expect(try Program.sockalive(none + ["--quiet"]).errorLines.count == 1)
            #expect(try Program.sockalive(["inject", "--no-lock", "--require"] + victim.selection).status == 0)
        }

        @Test(.enabled(if: Machine.has("flock"), "flock, of util-linux, is missing"))
        func `75: another run holds the lock`() throws {
            let victim = try Victim()
            let folder = try TemporaryFolder()
            let inject = ["inject", "--lock", folder.path("lock")] + victim.selection
            // A shared lock only blocks an exclusive one.
            let held = try Program.sockalive(inject, launcher: ["flock", "--shared", folder.path("lock")])
            #expect(held.status == 75)
            #expect(held.errorLines.count == 1)
            #expect(held.errors.contains(folder.path("lock")))
            #expect(try victim.keepalive() == [.untouched])
            let list = try Program.sockalive(["list"] + victim.selection, launcher: ["flock", folder.path("lock")])
            #expect(list.status == 0)
            #expect(try Program.sockalive(inject).status == 0)
            #expect(try Program.sockalive(inject).status == 0)
        }

        // UsageTests has 64. FallbackTests has 69 and 77.

        private func noLock(_ command: String) -> [String] {
            command == "inject" ? ["--no-lock"] : []
        }
    }

    /// The lock may be out of reach without any fault in the command line.
    @Suite struct LockTrouble {
        private let nobody = ["--process", "no-such-process"]

        @Test(.enabled(if: Machine.isRoot, "only root may run sockalive as another user"))
        func `77: the lock belongs to another user`() throws {
            let folder = try TemporaryFolder()
            let inject = ["inject", "--lock", folder.path("lock")] + nobody
            let program = try Program.sockalive(inject, launcher: Conditions.asNobody)
            #expect(program.status == 77 && program.errorLines.count == 1, "\(program.errors)")
            #expect(program.errors.contains("cannot be opened (Permission denied): it belongs to another user"))
        }

        @Test(
            .enabled(if: Machine.isRoot && Machine.makesNamespaces, "only root may mount"),
            arguments: [
                ("ro", 77, "Read-only file system"), ("nr_inodes=1", 1, "No space left on device"),
            ])
        func `a file system that takes no lock is named, with a remedy`(
            option: String, status: Int32, words: String
        ) throws {
            let folder = try TemporaryFolder()
            let mount = "mount -t tmpfs -o \(option) tmpfs '\(folder.path(""))' && exec \"$@\""
            let inject = ["inject", "--lock", folder.path("lock")] + nobody
            let program = try Program.sockalive(inject, launcher: ["unshare", "--mount", "sh", "-c", mount, "sh"])
            #expect(program.status == status && program.errorLines.count == 1, "\(program.errors)")
            #expect(program.errors.contains("(\(words))") && program.errors.contains("--no-lock"))
        }

        @Test func `64: the folder of a given lock is missing`() throws {
            let program = try Program.sockalive(["inject", "--lock", "/nonexistent/lock"] + nobody)
            #expect(program.status == 64 && program.errors.contains("--no-lock"))
        }
    }
}

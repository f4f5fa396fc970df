import Foundation
import Glibc
import Testing

extension ProcessTests {
    /// The shipped program: each command once, and the parts that depend on the static runtime. The other suites run
    /// the debug build.
    @Suite(.enabled(if: Program.shipped != nil, "SOCKALIVE_STATIC names no static build; Tests/run.sh makes one"))
    struct StaticProgram {
        private func shipped<Result>(_ body: () throws -> Result) throws -> Result {
            try Program.$executable.withValue(#require(Program.shipped), operation: body)
        }

        @Test func `it has no program interpreter`() throws {
            let file = try [UInt8](Data(contentsOf: URL(fileURLWithPath: #require(Program.shipped))))
            // ELF-64: e_phoff, e_phentsize, e_phnum, and p_type of each program header (elf(5)).
            func number(_ offset: Int, _ bytes: Int) -> Int {
                file[offset..<offset + bytes].reversed().reduce(0) { $0 << 8 | Int($1) }
            }
            #expect(file.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1]))
            let headers = (0..<number(56, 2)).map { number(number(32, 8) + $0 * number(54, 2), 4) }
            #expect(headers.contains(Int(PT_LOAD)))
            #expect(!headers.contains(Int(PT_INTERP)))
        }

        @Test func `list shows a session, and users have names`() throws {
            let victim = try Victim()
            let user = Machine.isRoot ? ["--user", "root"] : []
            let report = try shipped { try Report.of(["list"] + user + victim.selection) }
            #expect(try report.socket.remote == .init(address: "127.0.0.1", port: victim.port))
            #expect(try report.socket.verdict == "unprotected")
            #expect(try victim.keepalive() == [.untouched])
        }

        @Test(arguments: methods) func `inject sets every session`(method: String) throws {
            let victim = try Victim { $0.sessions = 3 }
            let trace = try ProcessTrace(of: victim.pid)
            let report = try shipped { try Report.of(["inject", "--method", method] + victim.selection) }
            #expect(report.summary.set == 3)
            #expect(report.sockets.allSatisfy { $0.method == method })
            #expect(try victim.keepalive() == [.forOneHour, .forOneHour, .forOneHour])
            #expect(try ProcessTrace(of: victim.pid) == trace)
            #expect(try victim.echoes())
        }

        @Test(arguments: methods) func `probe gets an answer`(method: String) throws {
            let victim = try Victim()
            let report = try shipped { try Report.of(["probe", "--method", method] + victim.selection) }
            #expect(try report.socket.probe?.answered == true)
            #expect(try victim.keepalive() == [.untouched])
            #expect(try victim.echoes())
        }

        @Test func `watch protects a session and ends at once`() throws {
            let victim = try Victim()
            let lock = try TemporaryFolder()
            let watch = try Child(
                [#require(Program.shipped), "watch", "--every", "1", "--lock", lock.path("lock")] + victim.selection)
            let line = watch.errors.line(until: Deadline(.seconds(10)))
            #expect(line?.contains("keepalive off → 600/60/50") == true)
            #expect(try victim.keepalive() == [.forOneHour])
            kill(watch.pid, SIGTERM)
            #expect(watch.wait() == 0)
        }

        @Test func `doctor tries every method and finds the target`() throws {
            let victim = try Victim()
            let answer = try shipped { try DoctorAnswer.of(victim.selection) }
            #expect(try answer.trial("pidfd").worked == true)
            #expect(try answer.trial("ptrace").worked == (Machine.injectsByPtrace ? true : nil))
            #expect(try answer.target.status == "ok")
        }

        @Test(.enabled(if: Machine.buildsFirewalls, "no namespaces, or ip (iproute2) or nft (nftables) is missing"))
        func `demo loses one session and saves the other`() throws {
            let demo = try shipped { try Program.sockalive(["demo"], deadline: .seconds(60)) }
            #expect(demo.status == 0, "\(demo.errors)")
            #expect(demo.output.contains("\nLIVED  192.0.2.1"))
            #expect(demo.output.contains("\nDIED   192.0.2.2"))
        }

        private static let commands = ["list", "inject", "probe", "watch", "doctor", "demo", "--version", "--help"]

        /// Each command without a match, and wrong command lines.
        private static let harmless: [[String]] = [
            ["list", "--pid", "2147483647"], ["inject", "--no-lock", "--pid", "2147483647"],
            ["probe", "--no-lock", "--pid", "2147483647"], ["watch", "--unknown"], ["doctor", "--pid", "x"],
            ["demo", "--unknown"], ["--version"], ["--help"], [], ["lisst"], ["list", "--port", "x"],
            ["list", "--user", "nobody!"],
        ]

        @Test(arguments: harmless) func `it prints the same as the debug build`(arguments: [String]) throws {
            let debug = try Program.sockalive(arguments)
            let shipped = try shipped { try Program.sockalive(arguments) }
            #expect(shipped.status == debug.status)
            #expect(shipped.errors == debug.errors)
            #expect(shipped.output == debug.output)
        }

        @Test(
            .enabled(if: Machine.isRoot && Machine.makesNamespaces, "root and unshare are needed to hide /proc"),
            arguments: commands)
        func `without /proc it prints the same as the debug build`(command: String) throws {
            let hidden = ["unshare", "--mount", "sh", "-c", #"mount -t tmpfs none /proc && exec "$@""#, "sh"]
            let debug = try Program.sockalive([command], launcher: hidden)
            let shipped = try shipped { try Program.sockalive([command], launcher: hidden) }
            #expect(debug.status == 69)
            #expect(shipped.status == debug.status, "\(shipped.errors)")
            #expect(shipped.errors == debug.errors)
            #expect(shipped.output == debug.output)
        }
    }
}

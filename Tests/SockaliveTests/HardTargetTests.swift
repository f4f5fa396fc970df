import Foundation
import Glibc
import Testing

extension ProcessTests {
    /// Targets that cannot be set now: the failure comes in limited time, without harm.
    @Suite(.enabled(if: Machine.injectsByPtrace, "ptrace injection knows x86-64 only"))
    struct HardTargets {
        @Test(
            .enabled(if: !Freezer.Version.here.isEmpty, "there is no freezer to be had here (cgroups(7))"),
            arguments: TestProgram.kinds, Freezer.Version.here)
        fileprivate func `a frozen target is named, and not touched`(
            kind: TestProgram.Kind, version: Freezer.Version
        ) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), "threads"])
            #expect(target.echoes())
            let freezer = try Freezer(target.pid, version)
            #expect(freezer.set(frozen: true))
            let before = try ProcessTrace(of: target.pid)
            let inject = ["inject", "--method", "ptrace", "--no-lock"] + target.selection
            let refused = try Program.sockalive(inject)
            #expect(refused.status == 1)
            let words = "PID \(target.pid) is frozen (its container or unit is paused); nothing was changed; thaw it"
            #expect(refused.errors.contains(words), "\(refused.errors)")
            #expect(try ProcessTrace(of: target.pid) == before)
            let seen = try DoctorAnswer.of(target.selection).target
            #expect(seen.state == "frozen" && seen.remedy?.contains("docker unpause") == true)
            // Borrowing needs no thread that runs.
            #expect(try Report.of(["inject", "--off"] + target.selection).socket.error == nil)
            #expect(freezer.set(frozen: false))
            #expect(target.echoes())
            let trace = try ProcessTrace(of: target.pid)
            #expect(trace.tracer == "0" && !trace.isStopped)
            #expect(try Report.of(inject).summary.set == 1)
            #expect(target.echoes())
        }

        /// Its filter would kill it for setsockopt, and only CAP_SYS_ADMIN may suspend the filter.
        @Test(.enabled(if: Machine.isRoot, "only root may become another user"), arguments: TestProgram.kinds)
        func `a filter that may not be suspended is a failure, and kills no target`(kind: TestProgram.Kind) throws {
            let other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all"]
            let folder = try TemporaryFolder()
            try Program.copy(TestProgram.path("victim-odd", kind), to: folder.path("victim"))
            try Program.copy(Program.path("sockalive"), to: folder.path("sockalive"))
            let target = try Echoer(other + [folder.path("victim"), "seccomp"])
            #expect(target.echoes())
            let inject = ["inject", "--method", "ptrace", "--no-lock"] + target.selection
            let refused = try Program.run(other + [folder.path("sockalive")] + inject)
            #expect(refused.status == 77, "\(refused.errors)")
            #expect(refused.errors.contains("has a seccomp filter that may kill it"), "\(refused.errors)")
            #expect(target.echoes())
        }

        /// The torture tests prove this JSON value. With recovery frames the target needs no other process. If a filter
        /// is suspended, the death of the injector puts it back into force before the remaining calls.
        @Test(.enabled(if: Machine.isRoot, "only root may suspend a seccomp filter"), arguments: TestProgram.kinds)
        func `crash_safe says whether the target would recover by itself`(kind: TestProgram.Kind) throws {
            for (how, isSafe) in [("plain", true), ("threads", true), ("seccomp", false)] {
                let target = try Echoer([TestProgram.path("victim-odd", kind), how])
                #expect(target.echoes())
                let socket = try Report.of(["inject", "--method", "ptrace"] + target.selection).socket
                #expect(socket.crashSafe == isSafe, "\(how)")
            }
            let target = try Echoer([TestProgram.path("victim-odd", kind), "plain"])
            #expect(try Report.of(["inject", "--method", "pidfd"] + target.selection).socket.crashSafe == nil)
        }

        /// A coroutine's stack is heap memory, so nothing may be written below it. The main thread's own stack is used
        /// if it was never that deep. Otherwise a mapping is made and unmapped again.
        @Test(arguments: TestProgram.kinds, [("one-coroutine", true), ("deep", false)])
        func `a mapped scratch area is unmapped again`(kind: TestProgram.Kind, how: (String, isSafe: Bool)) throws {
            let target = try Echoer([TestProgram.path("victim-odd", kind), how.0])
            #expect(target.echoes())
            let map = try String(contentsOfFile: "/proc/\(target.pid)/maps", encoding: .utf8)
            let socket = try Report.of(["inject", "--method", "ptrace"] + target.selection).socket
            #expect(socket.action == "set" && socket.crashSafe == how.isSafe)
            #expect(target.echoes())
            #expect(try String(contentsOfFile: "/proc/\(target.pid)/maps", encoding: .utf8) == map)
        }
    }
}

/// A cgroup with one process in it, which can be frozen. At the end it is thawed and removed.
private final class Freezer {
    enum Version: String, CaseIterable {
        case one = "/sys/fs/cgroup/freezer"
        /// A machine that has both versions.
        case twoBesideOne = "/sys/fs/cgroup/unified"
        case two = "/sys/fs/cgroup"

        /// Those of this machine.
        static let here = allCases.filter { version in
            let mark = version == .one ? "/cgroup.procs" : "/cgroup.subtree_control"
            return Machine.isRoot && FileManager.default.isWritableFile(atPath: version.rawValue + mark)
        }
    }

    private let version: Version
    private let folder: String

    init(_ pid: Int32, _ version: Version) throws {
        self.version = version
        folder = "\(version.rawValue)/sockalive-\(pid)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        try "\(pid)".write(toFile: "\(folder)/cgroup.procs", atomically: false, encoding: .utf8)
    }

    /// Sets the state; false if it is not reached.
    func set(frozen: Bool) -> Bool {
        let (command, state, reached) =
            version == .one
            ? ("freezer.state", "freezer.state", frozen ? "FROZEN" : "THAWED")
            : ("cgroup.freeze", "cgroup.events", frozen ? "frozen 1" : "frozen 0")
        let word = version == .one ? reached : frozen ? "1" : "0"
        let deadline = Deadline(.seconds(10))
        repeat {
            try? word.write(toFile: "\(folder)/\(command)", atomically: false, encoding: .utf8)
            let now = try? String(contentsOfFile: "\(folder)/\(state)", encoding: .utf8)
            if now?.contains(reached) == true { return true }
        } while deadline.millisecondsLeft > 0
        return false
    }

    deinit {
        _ = set(frozen: false)
        let processes = (try? String(contentsOfFile: "\(folder)/cgroup.procs", encoding: .utf8)) ?? ""
        for pid in processes.split(separator: "\n") {
            try? pid.write(toFile: "\(version.rawValue)/cgroup.procs", atomically: false, encoding: .utf8)
        }
        rmdir(folder)
    }
}

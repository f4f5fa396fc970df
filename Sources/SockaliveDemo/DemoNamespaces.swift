import Glibc
import SockaliveCore
import SystemPackage

/// Namespaces of one's own, and a process that is the first in them: with it everything inside ends.
package enum DemoNamespaces {
    private static let stopSignals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]

    /// The descriptor by which the stage can tell that this process is gone.
    static let lifeline: Int32 = 3

    /// Runs this program inside with `arguments`; its exit code.
    ///
    /// Stop signals end everything inside first, and this process afterwards.
    package static func run(_ arguments: [String]) throws -> Int32 {
        try enter()
        // Blocked for the children as well: a Ctrl-C is for this process to handle alone.
        let awaited = block(stopSignals + [SIGCHLD])
        let (ours, theirs) = try Channel.pair()
        let stage = try ChildProcess.spawnSelf(arguments, descriptors: [(lifeline, theirs.descriptor)])
        theirs.close()
        defer { ours.close() }
        switch waitForEnd(of: stage, or: awaited) {
        case .stage(.exited(let code)): return code
        case .stage(.killed(let signal)): throw DemoFailure("the demo was killed by signal \(signal) from outside")
        case .stopRequest(let signal):
            stage.kill()
            _ = stage.wait()
            die(of: signal)
        }
    }

    // MARK: - Getting in

    private static func enter() throws {
        let namespaces: Namespaces = [.mount, .pid, .network]
        do {
            // A root without CAP_SYS_ADMIN, as in a container, goes the way of ordinary users.
            if geteuid() == 0, (try? namespaces.enter()) != nil { return }
            let (user, group) = (geteuid(), getegid())
            try namespaces.union(.user).enter()
            // user_namespaces(7): without CAP_SETGID outside, setgroups must be denied before gid_map is written.
            try KernelFile.write("deny", to: "/proc/self/setgroups")
            try KernelFile.write("0 \(user) 1", to: "/proc/self/uid_map")
            try KernelFile.write("0 \(group) 1", to: "/proc/self/gid_map")
        } catch {
            throw failure(for: error)
        }
    }

    /// One line that says what refused, and the remedy that this machine's settings suggest.
    private static func failure(for error: any Error) -> DemoFailure {
        guard geteuid() != 0 else {
            return DemoFailure(
                "this root may not make namespaces (\(error)): CAP_SYS_ADMIN is missing, as in a container; "
                    + "run it on the host itself", .noPermission)
        }
        let remedy = switches.first { setting($0.name) == $0.refusing }.map { "sysctl -w \($0.name)=\($0.allowing)" }
        return DemoFailure(
            "user namespaces are refused here (\(error)); run it as root"
                + (remedy.map { ", or allow them: \($0)" } ?? ""), .noPermission)
    }

    /// What refuses user namespaces: Debian before 11, Ubuntu since 23.10, and the kernel's own limit.
    private static let switches = [
        (name: "kernel.unprivileged_userns_clone", refusing: "0", allowing: "1"),
        (name: "kernel.apparmor_restrict_unprivileged_userns", refusing: "1", allowing: "0"),
        (name: "user.max_user_namespaces", refusing: "0", allowing: "10000"),
    ]

    private static func setting(_ name: String) -> String? {
        let path = "/proc/sys/" + String(name.map { $0 == "." ? "/" : $0 })
        return KernelFile.read(path)?.split(separator: "\n").first.map(String.init)
    }

    // MARK: - Getting out

    private enum Wakeup {
        case stage(ChildProcess.End)
        case stopRequest(Int32)
    }

    private static func block(_ signals: [Int32]) -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal) }
        sigprocmask(SIG_BLOCK, &set, nil)
        // Where our parent ignored it, children would vanish before they are waited for (wait(2)).
        signal(SIGCHLD, SIG_DFL)
        return set
    }

    private static func waitForEnd(of stage: ChildProcess, or signals: sigset_t) -> Wakeup {
        var (signals, signal) = (signals, Int32(0))
        while true {
            sigwait(&signals, &signal)
            if signal != SIGCHLD { return .stopRequest(signal) }
            if let end = stage.poll() { return .stage(end) }
        }
    }

    /// Ends this process as the signal would have, so that a shell sees why.
    private static func die(of signal: Int32) -> Never {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, signal)
        raise(signal)
        sigprocmask(SIG_UNBLOCK, &set, nil)
        exit(128 + signal)
    }
}

/// What runs inside the namespaces: the first process there, in the firewall's network.
package enum DemoStage {
    package static let commandName = "demo-stage"

    package static func enter() throws {
        // Outside, what follows would hide the machine's own /proc.
        guard getpid() == 1 else { throw DemoFailure("\(commandName) is a part of `sockalive demo`") }
        try followParent()
        try mountOwnProc()
    }

    /// Ends with the process outside, even one that ended before the kernel was asked for that.
    private static func followParent() throws {
        do {
            try dieWithParent()
        } catch {
            throw DemoFailure("cannot tie the demo to its parent: \(error)")
        }
        if waitReadable(DemoNamespaces.lifeline, until: Deadline(seconds: 0)) { throw ParentGone() }
    }

    /// A /proc of this PID namespace, on which nothing but the demo's own processes can be found.
    private static func mountOwnProc() throws {
        let flags = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)
        guard mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil) == 0,
            mount("proc", "/proc", "proc", flags, nil) == 0
        else {
            let error = Errno(rawValue: errno)
            throw DemoFailure(
                "cannot mount a /proc of its own (\(error)), as in a container; run it on the host itself",
                .noPermission)
        }
    }
}

/// A file of /proc, which the kernel reads or writes as a whole.
enum KernelFile {
    static func read(_ path: String) -> String? {
        guard let file = try? FileDescriptor.open(path, .readOnly) else { return nil }
        defer { try? file.close() }
        return Channel(descriptor: file).readToEnd()
    }

    static func write(_ text: String, to path: String) throws {
        let file = try FileDescriptor.open(path, .writeOnly)
        try file.closeAfter { _ = try file.writeAll(text.utf8) }
    }
}

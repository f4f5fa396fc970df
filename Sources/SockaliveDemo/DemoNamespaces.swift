import Glibc
import SockaliveCore
import SystemPackage

/// The demo's own mount, PID and network namespaces. The first process inside is PID 1 of its namespace. When it ends,
/// the kernel ends all other processes inside (pid_namespaces(7)).
package enum DemoNamespaces {
    private static let stopSignals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]

    /// The command of the first process inside.
    package static let commandName = "demo-stage"

    /// The first process's end of a socket pair with this process. It becomes readable when this process ends.
    private static let parentDescriptor: Int32 = 3

    /// Runs ``commandName`` inside with `arguments`, and returns its exit code.
    ///
    /// On a stop signal, all processes inside end first, then this process.
    package static func run(_ arguments: [String]) throws -> Int32 {
        try enter()
        // The children inherit the blocked signals, so only this process handles a Ctrl-C.
        let awaited = block(stopSignals + [SIGCHLD])
        let (ours, theirs) = try Channel.pair()
        let first = try ChildProcess.spawnSelf(
            [commandName] + arguments, descriptors: [(parentDescriptor, theirs.descriptor)])
        theirs.close()
        defer { ours.close() }
        switch waitForEnd(of: first, or: awaited) {
        case .ended(.exited(let code)): return code
        case .ended(.killed(let signal)): throw DemoFailure("the demo was killed by signal \(signal) from outside")
        case .stopRequest(let signal):
            first.kill()
            _ = first.wait()
            endProcess(by: signal)
        }
    }

    // MARK: - Entering

    private static func enter() throws {
        let namespaces: Namespaces = [.mount, .pid, .network]
        do {
            // Root without CAP_SYS_ADMIN, as in a container, needs a user namespace, as other users do.
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

    /// One line with the error and a remedy that fits this machine's settings.
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

    /// Settings that disable user namespaces: of Debian before 11, of Ubuntu since 23.10, and the kernel's own limit.
    private static let switches = [
        (name: "kernel.unprivileged_userns_clone", refusing: "0", allowing: "1"),
        (name: "kernel.apparmor_restrict_unprivileged_userns", refusing: "1", allowing: "0"),
        (name: "user.max_user_namespaces", refusing: "0", allowing: "10000"),
    ]

    private static func setting(_ name: String) -> String? {
        let path = "/proc/sys/" + String(name.map { $0 == "." ? "/" : $0 })
        return KernelFile.read(path)?.split(separator: "\n").first.map(String.init)
    }

    // MARK: - Waiting for the end

    private enum Wakeup {
        case ended(ChildProcess.End)
        case stopRequest(Int32)
    }

    private static func block(_ signals: [Int32]) -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal) }
        sigprocmask(SIG_BLOCK, &set, nil)
        // If our parent ignored SIGCHLD, the kernel would reap the children before waitpid does (wait(2)).
        signal(SIGCHLD, SIG_DFL)
        return set
    }

    private static func waitForEnd(of child: ChildProcess, or signals: sigset_t) -> Wakeup {
        var (signals, signal) = (signals, Int32(0))
        while true {
            sigwait(&signals, &signal)
            if signal != SIGCHLD { return .stopRequest(signal) }
            if let end = child.poll() { return .ended(end) }
        }
    }

    /// Ends this process by the same signal, so that a shell sees the reason.
    private static func endProcess(by signal: Int32) -> Never {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, signal)
        raise(signal)
        sigprocmask(SIG_UNBLOCK, &set, nil)
        exit(128 + signal)
    }

    // MARK: - Inside

    /// Prepares the first process inside, before it starts anything.
    package static func setUp() throws {
        // Outside the namespaces, the mounts would hide the machine's own /proc.
        guard getpid() == 1 else { throw DemoFailure("\(commandName) is a part of `sockalive demo`") }
        try followParent()
        try mountOwnProc()
    }

    /// Ends this process together with its parent, even if the parent has ended already.
    private static func followParent() throws {
        do {
            try dieWithParent()
        } catch {
            throw DemoFailure("cannot tie the demo to its parent: \(error)")
        }
        if waitReadable(parentDescriptor, until: Deadline(seconds: 0)) { throw ParentGone() }
    }

    /// Mounts the /proc of this PID namespace. It shows only the demo's own processes.
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

/// A file of /proc that is read or written as a whole.
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

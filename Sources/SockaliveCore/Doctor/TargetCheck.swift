/// What the facts of a target mean for the work. Pure.
struct TargetCheck {
    let facts: TargetFacts
    /// What `--method auto` takes on this machine.
    let method: Method
    /// The methods whose trial did not fail.
    let working: [Method]
    let canSuspendSeccomp: Bool
    /// What to do about missing rights.
    let rights: String

    var check: Check {
        if let obstacle { return obstacle }
        let message = "\(description); \(sockets), by \(method.rawValue)"
        if facts.sockets == 0 {
            return .note(name, "\(description); no connection that matches", remedy: "nothing to do while it has none")
        }
        if isStopped {
            return .note(
                name, message, remedy: "kill -CONT \(facts.pid) lets it go on; keepalive works meanwhile")
        }
        return facts.isFrozen
            ? .note(name, message, remedy: "thaw its cgroup to let it go on; keepalive works meanwhile")
            : .ok(name, message)
    }

    private var name: String { "\(facts.pid) \(facts.name.escaped)" }

    private var sockets: String {
        facts.sockets == 1 ? "1 connection" : "\(facts.sockets) connections"
    }

    private var hasExited: Bool { facts.threadStates.allSatisfy { "ZX".contains($0) } }

    private var isStopped: Bool { !hasExited && allThreads(are: "TZX") }

    /// Uninterruptible: no thread of it will stop for a tracer.
    private var hangs: Bool { !hasExited && allThreads(are: "DZX") }

    private func allThreads(are states: String) -> Bool {
        facts.threadStates.allSatisfy(states.contains)
    }

    // MARK: - What is in the way

    private var obstacle: Check? {
        if hasExited {
            return .note(name, "has exited, and waits for its parent", remedy: "nothing is left to do for it")
        }
        if facts.denial != nil {
            return .problem(name, "\(description); no permission to reach into it", remedy: rights)
        }
        guard working.contains(method) else {
            return .problem(
                name, "\(description); \(method.rawValue) would be used, and does not work here",
                remedy: "see try_\(method.rawValue) above")
        }
        return method == .ptrace ? ptraceObstacle : nil
    }

    private var ptraceObstacle: Check? {
        if let tracer = facts.tracer {
            return .problem(
                name, "\(description); only one process may trace it",
                remedy: "detach \(tracer.name.escaped) (PID \(tracer.pid)), or use pidfd (Linux 5.6)")
        }
        if hangs || facts.isFrozen {
            return .problem(
                name, "\(description); it will not stop for a tracer",
                remedy: facts.isFrozen ? "thaw its cgroup" : "wait until the device or file system it waits for answers"
            )
        }
        if facts.seccomp != 0 && !canSuspendSeccomp {
            return .problem(
                name, "\(description); its filter cannot be suspended",
                remedy: "run as root with CAP_SYS_ADMIN and outside any sandbox, or use pidfd (Linux 5.6)")
        }
        switch facts.program {
        case .x32, .other:
            return .problem(
                name, "\(description); ptrace injection is for x86-64 and i386 programs",
                remedy: "use pidfd (Linux 5.6)")
        case .amd64, .i386, nil: return nil
        }
    }

    // MARK: - Words

    private var description: String {
        var words = [facts.program.map { "\($0.bits)-bit" } ?? "of unknown bitness", state]
        if let tracer = facts.tracer { words.append("traced by \(tracer.name.escaped) (PID \(tracer.pid))") }
        if facts.seccomp != 0 { words.append("seccomp filter") }
        return words.joined(separator: ", ")
    }

    /// The state in one word, `frozen` before all others.
    var state: String {
        if facts.isFrozen { return "frozen" }
        if isStopped { return "stopped" }
        if hangs { return "hanging in the kernel" }
        return facts.threadStates.contains("R") ? "running" : "asleep"
    }
}

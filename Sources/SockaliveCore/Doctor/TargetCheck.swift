import SystemPackage

/// The facts of one running target.
struct TargetFacts: Equatable, Sendable {
    typealias Program = ELFProgram

    struct Tracer: Equatable, Sendable {
        let pid: Int32
        let name: UntrustedText
    }

    var pid: Int32
    var name: UntrustedText
    /// nil if it may not be read, or for a kernel thread.
    var executable: UntrustedText?
    /// The effective user.
    var uid: UInt32
    /// nil if the executable may not be read.
    var program: Program?
    /// One letter for each thread, as in proc_pid_stat(5); the main thread comes first.
    var threadStates: [Character]
    var tracer: Tracer?
    /// 0 none, 1 strict, 2 filter.
    var seccomp: Int
    var isFrozen: Bool
    /// Why this process may not access the target; nil if it may.
    var denial: Errno?
    /// Its descriptors may not be read, so nobody knows whether it has a socket that matches.
    var hidesDescriptors = false
    /// The number of sockets that match the selection.
    var sockets: Int
}

extension TargetFacts {
    /// nil if the process is gone.
    init?(pid: Int32, sockets: Int, procfs: ProcFS, sysfs: ProcFS?) {
        WorkerProgress.enter(.user, pid)
        guard let status = try? procfs.status("\(pid)") else { return nil }
        self.pid = pid
        name = UntrustedText(procfs.text("\(pid)/comm")?.dropLast() ?? [])
        WorkerProgress.enter(.executable, pid)
        executable = (try? procfs.link("\(pid)/exe")).map { UntrustedText($0.withoutDeletedSuffix) }
        uid = status.uid
        self.sockets = sockets
        WorkerProgress.enter(.inspect, pid)
        program = (try? procfs.prefix(of: "\(pid)/exe", count: 20)).flatMap(Program.init)
        WorkerProgress.enter(.identity, pid)
        threadStates = Self.threadStates(of: pid, procfs)
        tracer = status.tracer == 0 ? nil : Tracer(pid: status.tracer, procfs: procfs)
        seccomp = status.seccomp
        isFrozen = Freezer(procfs: procfs, sysfs: sysfs).isFrozen(pid)
        denial = Self.denial(of: pid, procfs)
        hidesDescriptors = Self.hidesDescriptors(pid, procfs)
    }

    private static func threadStates(of pid: Int32, _ procfs: ProcFS) -> [Character] {
        let threads = (try? procfs.numbers(in: "\(pid)/task")) ?? []
        return threads.compactMap { thread in
            (try? procfs.read("\(pid)/task/\(thread)/stat", { ProcessStat($0) }))?.state
        }
    }

    /// Opening `mem` makes the kernel check the same right as ptrace and pidfd_getfd: PTRACE_MODE_ATTACH, with Yama and
    /// the security modules (fs/proc/base.c, proc_mem_open). The target does not notice it.
    private static func denial(of pid: Int32, _ procfs: ProcFS) -> Errno? {
        do {
            WorkerProgress.enter(.descriptors, pid)
            _ = try procfs.numbers(in: "\(pid)/fd")
            WorkerProgress.enter(.memory, pid)
            _ = try procfs.prefix(of: "\(pid)/mem", count: 0)
            return nil
        } catch let error as Errno where error.isPermission {
            return error
        } catch {
            return nil
        }
    }
}

extension TargetFacts {
    /// The folder opens to the process's own user; reading its links takes PTRACE_MODE_READ in addition.
    private static func hidesDescriptors(_ pid: Int32, _ procfs: ProcFS) -> Bool {
        WorkerProgress.enter(.descriptors, pid)
        do {
            guard let first = try procfs.numbers(in: "\(pid)/fd").first else { return false }
            _ = try procfs.link("\(pid)/fd/\(first)")
            return false
        } catch {
            return (error as? Errno)?.isPermission ?? true
        }
    }
}

extension TargetFacts.Tracer {
    fileprivate init(pid: Int32, procfs: ProcFS) {
        self.pid = pid
        name = UntrustedText(procfs.text("\(pid)/comm")?.dropLast() ?? [])
    }
}

/// Judges the facts of a target. Pure.
struct TargetCheck {
    let facts: TargetFacts
    /// The method that `--method auto` uses on this machine.
    let method: Method
    /// The methods whose trial did not fail.
    let working: [Method]
    /// Whether a target's seccomp filter can be suspended.
    let suspending: Check
    let rights: MissingRights

    var check: Check {
        if let obstacle { return obstacle }
        let message = "\(description); \(sockets), by \(method.rawValue)"
        if isStopped {
            return .note(
                name, message, remedy: "kill -CONT \(facts.pid) lets it go on; keepalive works meanwhile")
        }
        return facts.isFrozen
            ? .note(name, message, remedy: "\(Freezer.remedy); keepalive works meanwhile")
            : .ok(name, message)
    }

    private var name: String { "\(facts.pid) \(facts.name.escaped)" }

    private var sockets: String {
        facts.sockets == 1 ? "1 connection" : "\(facts.sockets) connections"
    }

    private var hasExited: Bool { facts.threadStates.allSatisfy { "ZX".contains($0) } }

    private var isStopped: Bool { !hasExited && allThreads(are: "TZX") }

    /// All threads sleep uninterruptibly, so none stops for a tracer.
    private var hangs: Bool { !hasExited && allThreads(are: "DZX") }

    private func allThreads(are states: String) -> Bool {
        facts.threadStates.allSatisfy(states.contains)
    }

    // MARK: - Obstacles

    private var obstacle: Check? {
        if hasExited {
            return .note(name, "has exited, and waits for its parent", remedy: "nothing is left to do for it")
        }
        if facts.sockets == 0 && !facts.hidesDescriptors {
            return .note(name, "\(description); no connection that matches", remedy: "nothing to do while it has none")
        }
        if facts.denial != nil || facts.hidesDescriptors {
            return .problem(
                name, "\(description); no permission to reach into it: \(rights.reason)", remedy: rights.remedy)
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
                remedy: "detach \(tracer.name.escaped) (PID \(tracer.pid))")
        }
        if hangs || facts.isFrozen {
            return .problem(
                name, "\(description); it will not stop for a tracer",
                remedy: facts.isFrozen ? Freezer.remedy : "wait until the device or file system it waits for answers")
        }
        if facts.seccomp != 0 && suspending.status != .ok {
            return .problem(
                name, "\(description); its filter cannot be suspended: see cap_sys_admin",
                remedy: suspending.remedy ?? "run as root")
        }
        switch facts.program {
        case .x32, .other:
            return .problem(
                name, "\(description); ptrace injection is for x86-64 and i386 programs",
                remedy: "only pidfd reaches it: see the check pidfd")
        case .amd64, .i386, nil: return nil
        }
    }

    // MARK: - Text

    private var description: String {
        var words = [facts.program.map { "\($0.bits)-bit" } ?? "of unknown bitness", state]
        if let tracer = facts.tracer { words.append("traced by \(tracer.name.escaped) (PID \(tracer.pid))") }
        if facts.seccomp != 0 { words.append("seccomp filter") }
        return words.joined(separator: ", ")
    }

    /// The state in words. `frozen` has priority.
    var state: String {
        if facts.isFrozen { return "frozen" }
        if isStopped { return "stopped" }
        if hangs { return "hanging in the kernel" }
        return facts.threadStates.contains("R") ? "running" : "asleep"
    }
}

import SystemPackage

/// Checks whether sockalive can work on this machine. It collects facts, tries the methods on its own child, and looks
/// at the targets without changing them.
package struct Doctor {
    private let procfs: ProcFS
    private let sysfs: ProcFS?
    private let firewallTimeout: Seconds
    /// Processes that hung when they were looked at, and are left out.
    private let hung: [Int32: SocketFailure]
    private let source: SocketSource
    /// Links to executables hang, so that only comm was compared.
    private let isByComm: Bool

    package init(
        procfs: ProcFS, sysfs: ProcFS?, firewallTimeout: Seconds, hung: [Int32: SocketFailure] = [:],
        source: SocketSource = .auto, isByComm: Bool = false
    ) {
        self.hung = hung
        self.isByComm = isByComm
        self.source = source
        self.procfs = procfs
        self.sysfs = sysfs
        self.firewallTimeout = firewallTimeout
    }

    /// - Parameters:
    ///   - trialTarget: the child for the trial, or why there is none.
    ///   - lookedFor: the selection in words.
    /// - Throws: `Errno` if `/proc` cannot be read.
    package func report(
        on selection: Selection, lookedFor: String, trialTarget: Result<any TrialTarget, TrialAbsence>
    ) throws -> DoctorReport {
        let facts = MachineFacts.gathered(procfs: procfs, sysfs: sysfs)
        let trials =
            facts.release.isUnsupported
            ? TrialResults(absence: TrialAbsence("not tried: the kernel is too old", remedy: "see the check kernel"))
            : results(of: trialTarget, facts)
        let auto = MethodChoice.auto.resolved()
        let (targets, unanswered) = try targets(selection, facts, trials, auto)
        let machine = MachineChecks(facts: facts, firewallTimeout: firewallTimeout)
        var checks = machine.all
        for (_, failure) in hung.sorted(by: { $0.key < $1.key }) {
            checks.append(.problem("targets", failure.message, remedy: failure.remedy ?? "run again"))
        }
        if isByComm {
            checks.append(
                .problem(
                    "names", "processes hang in execve(2), so targets were sought by comm alone",
                    remedy: "end those processes, or look what they wait for"))
        }
        for process in unanswered {
            let failure = process.failure(in: procfs)
            let name = "\(process.pid) \(process.name?.escaped ?? "?")"
            checks.append(.problem(name, failure.message, remedy: failure.remedy ?? "run again"))
        }
        if targets.isEmpty && unanswered.isEmpty { checks.append(machine.absence(of: lookedFor)) }
        return DoctorReport(
            firewallTimeout: firewallTimeout, machine: checks,
            trialChecks: TrialChecks(results: trials, surroundings: facts.surroundings, auto: auto).all + guardChecks,
            trials: trials,
            targets: targets)
    }

    /// No search reads a link of a process that hung, whichever process it is for.
    private var limits: ProcessLimits {
        ProcessLimits(
            includes: { hung[$0] == nil }, excluded: Set(hung.keys), hungExecutables: Set(hung.keys), isByComm: isByComm
        )
    }

    /// None for a fixture.
    private var guardChecks: [Check] {
        procfs.isOwn ? [GuardTrial(procfs: procfs).check] : []
    }

    private func results(of target: Result<any TrialTarget, TrialAbsence>, _ facts: MachineFacts) -> TrialResults {
        var results = TrialResults()
        do {
            let trial = Trial(
                procfs: procfs, target: try target.get(), ownSeccomp: facts.seccomp, source: source, limits: limits)
            let connection = try trial.connection()
            results.pidfd = trial.inject(into: connection, by: .pidfd)
            if facts.architecture == .amd64 { results.ptrace = trial.inject(into: connection, by: .ptrace) }
            results.lookup = trial.lookup(connection)
        } catch let absence as TrialAbsence {
            results.absence = absence
        } catch {
            results.absence = TrialAbsence("/proc cannot be searched: \(error)", remedy: "mount /proc anew")
        }
        return results
    }

    /// - Returns: the processes, and those of which nobody knows whether they have sockets, for another reason than
    ///   missing rights. Those are a finding about the process itself.
    private func targets(
        _ selection: Selection, _ facts: MachineFacts, _ trials: TrialResults, _ auto: Method
    ) throws -> ([ExaminedTarget], [UnansweredProcess]) {
        let snapshot = try Discovery(procfs: procfs, source: source, method: .ptrace, limits: limits)
            .snapshot(of: selection)
        let suspending = MachineChecks(facts: facts, firewallTimeout: firewallTimeout).suspending
        let working = trials.absence == nil ? trials.methods : [.pidfd, .ptrace]
        let targets: [ExaminedTarget] = snapshot.processes.compactMap { pid in
            let sockets = snapshot.sockets.count { socket in
                socket.holders.contains { $0.pid == pid } || socket.process.pid == pid
            }
            guard let target = TargetFacts(pid: pid, sockets: sockets, procfs: procfs, sysfs: sysfs) else { return nil }
            let judgement = TargetCheck(
                facts: target, method: auto, working: working, suspending: suspending,
                rights: MissingRights(procfs: procfs, pid: pid, surroundings: facts.surroundings))
            return ExaminedTarget(facts: target, judgement: judgement)
        }
        return (targets, snapshot.unanswered.filter { !$0.isPermission })
    }
}

extension GuardTrial {
    /// Without guards the watch does the work, so this is never a problem.
    var check: Check {
        switch self {
        case .worked: .ok("guard", "a guard gave both ends of a new connection their keepalive, in a cgroup of its own")
        case .onlyOverriding:
            .note(
                "guard", "this kernel does not tell a guard what a program has chosen itself",
                remedy: "guard on --override sets keepalive in any case; Linux 6.1 tells")
        case .failed(let failure): .note("guard", failure.message, remedy: failure.remedy ?? "use sockalive watch")
        }
    }
}

/// A target and the check of it.
struct ExaminedTarget {
    let facts: TargetFacts
    let judgement: TargetCheck
}

/// One line of the doctor's report.
package struct Check: Equatable, Sendable {
    package enum Status: String, Sendable {
        case ok
        /// Useful to know; no action is needed.
        case note
        /// Prevents the work.
        case problem
    }

    package let name: String
    package let status: Status
    /// One line. Text from other processes is escaped.
    package let message: String
    package let remedy: String?

    private init(_ name: String, _ status: Status, _ message: String, _ remedy: String?) {
        self.name = name
        self.status = status
        self.message = message
        self.remedy = remedy
    }

    static func ok(_ name: String, _ message: String) -> Check {
        Check(name, .ok, message, nil)
    }

    static func note(_ name: String, _ message: String, remedy: String? = nil) -> Check {
        Check(name, .note, message, remedy)
    }

    /// A problem always has a remedy.
    static func problem(_ name: String, _ message: String, remedy: String) -> Check {
        Check(name, .problem, message, remedy)
    }

    /// A problem if nothing else works, else a note.
    static func obstacle(_ name: String, isFatal: Bool, _ message: String, remedy: String) -> Check {
        Check(name, isFatal ? .problem : .note, message, remedy)
    }
}

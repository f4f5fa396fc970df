import SystemPackage

/// Says whether this machine lets sockalive work: it gathers facts, tries what it claims on a child of its
/// own, and looks at the targets without touching them.
public struct Doctor {
    private let procfs: ProcFS
    private let sysfs: ProcFS?
    private let firewallTimeout: Seconds

    public init(procfs: ProcFS, sysfs: ProcFS?, firewallTimeout: Seconds) {
        self.procfs = procfs
        self.sysfs = sysfs
        self.firewallTimeout = firewallTimeout
    }

    /// - Parameters:
    ///   - trialTarget: the child to try on, or why there is none.
    ///   - lookedFor: the selection in words.
    /// - Throws: `Errno` where `/proc` itself cannot be read.
    public func report(
        on selection: Selection, lookedFor: String, trialTarget: Result<any TrialTarget, TrialAbsence>
    ) throws -> DoctorReport {
        let facts = MachineFacts.gathered(procfs: procfs, sysfs: sysfs)
        let trials = results(of: trialTarget, facts)
        let auto = MethodChoice.auto.resolved()
        let targets = try targets(selection, facts, trials, auto)
        var checks = MachineChecks(facts: facts, firewallTimeout: firewallTimeout).all
        if targets.isEmpty {
            checks.append(
                .note(
                    "targets", "no process matches: looked for \(lookedFor)",
                    remedy: "start the agent, or name it with --process or --pid"))
        }
        return DoctorReport(
            firewallTimeout: firewallTimeout, machine: checks,
            trialChecks: TrialChecks(results: trials, ownSeccomp: facts.seccomp, auto: auto).all, trials: trials,
            targets: targets)
    }

    private func results(of target: Result<any TrialTarget, TrialAbsence>, _ facts: MachineFacts) -> TrialResults {
        var results = TrialResults()
        do {
            let trial = Trial(procfs: procfs, target: try target.get(), ownSeccomp: facts.seccomp)
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

    private func targets(
        _ selection: Selection, _ facts: MachineFacts, _ trials: TrialResults, _ auto: Method
    ) throws -> [ExaminedTarget] {
        let snapshot = try Discovery(procfs: procfs).snapshot(of: selection)
        let working = trials.absence == nil ? trials.methods : [.pidfd, .ptrace]
        return snapshot.processes.compactMap { pid in
            let sockets = snapshot.sockets.count { socket in
                socket.holders.contains { $0.pid == pid } || socket.process.pid == pid
            }
            guard let target = TargetFacts(pid: pid, sockets: sockets, procfs: procfs, sysfs: sysfs) else { return nil }
            let judgement = TargetCheck(
                facts: target, method: auto, working: working,
                canSuspendSeccomp: facts.capabilities.contains(.sysAdmin) && facts.seccomp == 0,
                rights: Diagnosis(procfs: procfs, method: auto).rights)
            return ExaminedTarget(facts: target, judgement: judgement)
        }
    }
}

/// A target and what was found about it.
struct ExaminedTarget {
    let facts: TargetFacts
    let judgement: TargetCheck
}

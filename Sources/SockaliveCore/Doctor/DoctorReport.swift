/// The doctor's whole report as JSON. An unknown value is null.
package struct DoctorReport: Encodable, Sendable {
    package let schema = 1
    package let command = "doctor"
    /// Seconds.
    package let firewallTimeout: Int
    let checks: [CheckReport]
    let trials: [TrialReport]
    let targets: [TargetReport]
    let summary: DoctorSummary

    package let machineChecks: [Check]
    /// The checks of the trial on the child.
    package let trialChecks: [Check]
    /// One check for each target.
    package let targetChecks: [Check]

    enum CodingKeys: CodingKey {
        case schema, command, firewallTimeout, checks, trials, targets, summary
    }

    init(
        firewallTimeout: Seconds, machine: [Check], trialChecks: [Check], trials: TrialResults,
        targets: [ExaminedTarget]
    ) {
        self.firewallTimeout = firewallTimeout.count
        machineChecks = machine
        self.trialChecks = trialChecks
        targetChecks = targets.map(\.judgement.check)
        checks = (machine + trialChecks).map(CheckReport.init)
        self.trials = [.pidfd, .ptrace].map { TrialReport($0, trials.outcome($0)) }
        self.targets = targets.map(TargetReport.init)
        summary = DoctorSummary(checks: machine + trialChecks + targetChecks)
    }

    package var all: [Check] { machineChecks + trialChecks + targetChecks }

    package var problems: Int { summary.problems }
    package var notes: Int { summary.notes }
    /// The methods that worked in the trial, the least intrusive first.
    package var workingMethods: [String] { trials.filter { $0.worked == true }.map(\.method) }
}

struct CheckReport: Encodable, Sendable {
    let name: String
    let status: String
    let message: String
    @Nullable var remedy: String?

    init(_ check: Check) {
        name = check.name
        status = check.status.rawValue
        message = check.message
        _remedy = Nullable(wrappedValue: check.remedy)
    }
}

/// The result of one method in the trial.
struct TrialReport: Encodable, Sendable {
    let method: String
    /// null: the method was not tried, or the trial did not finish.
    @Nullable var worked: Bool?
    /// How long a thread of the child was stopped.
    @Nullable var pausedMicroseconds: Int?

    init(_ method: Method, _ outcome: TrialOutcome?) {
        self.method = method.rawValue
        switch outcome {
        case .worked(_, let paused):
            _worked = Nullable(wrappedValue: true)
            _pausedMicroseconds = Nullable(wrappedValue: paused)
        case .failed:
            _worked = Nullable(wrappedValue: false)
            _pausedMicroseconds = Nullable(wrappedValue: nil)
        case .filtered, nil:
            _worked = Nullable(wrappedValue: nil)
            _pausedMicroseconds = Nullable(wrappedValue: nil)
        }
    }
}

struct TargetReport: Encodable, Sendable {
    let pid: Int32
    let process: String
    @Nullable var exe: String?
    let uid: UInt32
    @Nullable var bits: Int?
    let state: String
    let seccomp: Int
    @Nullable var tracer: TracerReport?
    let method: String
    let sockets: Int
    let status: String
    let message: String
    @Nullable var remedy: String?

    init(_ target: ExaminedTarget) {
        let facts = target.facts
        let check = target.judgement.check
        pid = facts.pid
        process = facts.name.decoded
        _exe = Nullable(wrappedValue: facts.executable?.decoded)
        uid = facts.uid
        _bits = Nullable(wrappedValue: facts.program?.bits)
        state = target.judgement.state
        seccomp = facts.seccomp
        _tracer = Nullable(wrappedValue: facts.tracer.map { TracerReport(pid: $0.pid, process: $0.name.decoded) })
        method = target.judgement.method.rawValue
        sockets = facts.sockets
        status = check.status.rawValue
        message = check.message
        _remedy = Nullable(wrappedValue: check.remedy)
    }
}

struct TracerReport: Encodable, Sendable {
    let pid: Int32
    let process: String
}

struct DoctorSummary: Encodable, Sendable {
    let ok: Int
    let notes: Int
    let problems: Int

    init(checks: [Check]) {
        ok = checks.count { $0.status == .ok }
        notes = checks.count { $0.status == .note }
        problems = checks.count { $0.status == .problem }
    }
}

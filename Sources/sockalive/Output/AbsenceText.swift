import SockaliveCore

/// Explains that nothing was found: what was looked for, and what is there instead.
struct AbsenceText {
    let lookedFor: String
    let reason: AbsenceReason

    var lines: [String] {
        var lines = ["no candidate: looked for \(lookedFor)"]
        if !reason.idleProcesses.isEmpty {
            let runs = reason.idleProcesses.count == 1 ? "runs" : "run"
            lines.append("\(list(reason.idleProcesses)) \(runs), but without such a connection")
        }
        if !reason.otherOwners.isEmpty {
            lines.append("such a connection belongs to \(list(reason.otherOwners)): name it with --process or --pid")
        }
        return lines
    }

    private func list(_ processes: [ProcessIdentity]) -> String {
        let shown = processes.prefix(3).map { "\($0.name.escaped) (PID \($0.pid))" }.joined(separator: ", ")
        return processes.count > 3 ? "\(shown) and \(processes.count - 3) more" : shown
    }
}

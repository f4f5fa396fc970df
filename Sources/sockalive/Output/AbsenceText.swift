import SockaliveCore

/// Explains that nothing was found: what was looked for, and what is there instead.
struct AbsenceText {
    let lookedFor: String
    /// A path was looked for. The executable of a running program may be another: it may have been moved.
    var showsExecutables = false
    let reason: AbsenceReason

    var lines: [String] {
        var lines = ["no candidate: looked for \(lookedFor)"]
        if !reason.idleProcesses.isEmpty {
            let runs = reason.idleProcesses.count == 1 ? "runs" : "run"
            lines.append("\(list(reason.idleProcesses)) \(runs), but without such a connection")
        }
        if !reason.otherOwners.isEmpty {
            let remedy = showsExecutables ? "its executable with --exe, or it" : "it"
            lines.append(
                "such a connection belongs to \(list(reason.otherOwners, showsExecutables)): "
                    + "name \(remedy) with --process or --pid")
        }
        for unheld in reason.unheld.prefix(Self.maxShown) { lines.append(line(unheld)) }
        if reason.unheld.count > Self.maxShown {
            lines.append("\(reason.unheld.count - Self.maxShown) more such connections are in no descriptor table")
        }
        return lines
    }

    private static let maxShown = 3

    private func line(_ unheld: AbsenceReason.Unheld) -> String {
        let row = unheld.row
        let connection = "\(row.localDescription) → \(row.remoteDescription)"
        if let owner = unheld.ringOwner {
            return "\(connection) is a direct descriptor of the io_uring of \(owner.name?.escaped ?? "?") "
                + "(PID \(owner.pid)), and cannot be reached from outside: let that program set SO_KEEPALIVE itself"
        }
        return "\(connection) of user \(row.uid) is in no descriptor table that may be read: it is on its way between "
            + "two processes (SCM_RIGHTS), the kernel's own (NFS, iSCSI), or of a process that cannot be seen from here "
            + "(another user's, another PID namespace's)"
    }

    private func list(_ processes: [ProcessIdentity], _ showsExecutables: Bool = false) -> String {
        let shown = processes.prefix(Self.maxShown).map { process in
            let executable = showsExecutables ? process.executable.map { ", \($0.escaped)" } ?? "" : ""
            return "\(process.name.escaped) (PID \(process.pid)\(executable))"
        }.joined(separator: ", ")
        return processes.count > Self.maxShown ? "\(shown) and \(processes.count - Self.maxShown) more" : shown
    }
}

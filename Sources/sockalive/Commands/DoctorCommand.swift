import ArgumentParser
import SockaliveCore
import SystemPackage

/// `sockalive doctor`: whether this machine lets the work be done; with the remedy where it does not.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say whether this machine lets sockalive work, and what to do where it does not.",
        discussion: """
            Every method is tried on a child process and a connection of its own; the targets are only looked at. \
            Exit 1 if there is a problem.
            """)

    @OptionGroup var selection: SelectionOptions
    @OptionGroup var output: OutputOptions

    @Option(
        help: .init("The firewall forgets a connection idle for so long (default: 60m).", valueName: "d"),
        transform: ArgumentTransform.firewallTimeout)
    var firewallTimeout: Seconds = KeepaliveRequest.defaultFirewallTimeout

    func run() throws {
        let report = try report()
        let isWritten = write(report)
        if !isWritten { StandardStreams.error("standard output is closed or full: the report is lost") }
        throw report.problems == 0 && isWritten ? RunStatus.done : RunStatus.someFailed
    }

    private func report() throws -> DoctorReport {
        do {
            let doctor = Doctor(
                procfs: try ProcFS(), sysfs: try? ProcFS(root: "/sys"), firewallTimeout: firewallTimeout)
            let child = Result { () throws(TrialAbsence) in try DoctorChild() as any TrialTarget }
            return try doctor.report(
                on: selection.selection, lookedFor: selection.description, trialTarget: child)
        } catch let error as Errno {
            StandardStreams.error("/proc cannot be read (\(error)): mount it, or run where it is mounted")
            throw RunStatus.unsupported
        }
    }

    private func write(_ report: DoctorReport) -> Bool {
        if output.json {
            guard let text = try? JSONOutput.text(report) else { return false }
            return StandardStreams.output(text)
        }
        if output.quiet {
            for check in report.all where check.status == .problem {
                StandardStreams.error("\(check.name): \(check.message); \(check.remedy ?? "")")
            }
            return true
        }
        return StandardStreams.output(DoctorText(report: report, style: StandardStreams.outputStyle).text)
    }
}

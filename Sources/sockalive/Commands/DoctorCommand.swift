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

    @Option(
        help: .init("The whole run takes no longer (default: 10s).", valueName: "d"),
        transform: ArgumentTransform.seconds)
    var timeout = RunOptions.defaultTimeout

    /// How a text of the worker begins: where it goes, and whether there is a problem.
    private enum Mark: Character {
        case well = "0"
        case problems = "1"
        case noProc = "2"
        case failed = "3"
    }

    func run() throws {
        let control = RunControl.begin(limit: timeout)
        let style = StandardStreams.outputStyle
        let text: String
        do throws(SearchError) {
            let before = HungProcess.file(beside: nil).map(HungProcess.read) ?? []
            text = try SupervisedText(control: control, limit: timeout, before: before).text { render($0, style) }
        } catch {
            throw RunError(error).printed()
        }
        HardLimit.disarm()
        guard let mark = text.first.flatMap(Mark.init) else { throw RunStatus.someFailed }
        let rest = String(text.dropFirst())
        if mark == .noProc || mark == .failed {
            StandardStreams.error(rest)
            throw mark == .noProc ? RunStatus.unsupported : RunStatus.someFailed
        }
        let isWritten = write(rest)
        throw mark == .well && isWritten ? RunStatus.done : RunStatus.someFailed
    }

    private func write(_ text: String) -> Bool {
        if output.quiet && !output.json {
            for line in text.split(separator: "\n") { StandardStreams.error(String(line)) }
            return true
        }
        let isWritten = StandardStreams.output(text)
        if !isWritten { StandardStreams.error("standard output is closed or full: the report is lost") }
        return isWritten
    }

    /// In the worker: all that there is to print, behind a mark.
    private func render(_ hangs: SupervisedText.Hangs, _ style: TextStyle) -> String {
        do {
            try OpenFiles.raiseLimit()
            let doctor = Doctor(
                procfs: try ProcFS(), sysfs: try? ProcFS(root: "/sys"), firewallTimeout: firewallTimeout,
                hung: hangs.processes, source: hangs.source ?? .auto, isByComm: hangs.isByComm)
            let child = Result { () throws(TrialAbsence) in try DoctorChild() as any TrialTarget }
            let report = try doctor.report(
                on: selection.selection, lookedFor: selection.description, trialTarget: child)
            let mark = report.problems == 0 ? Mark.well : .problems
            return String(mark.rawValue) + (try text(of: report, style))
        } catch {
            let error = RunError(.proc(error as? Errno ?? .ioError))
            return String((error.status == .unsupported ? Mark.noProc : .failed).rawValue) + error.line
        }
    }

    private func text(of report: DoctorReport, _ style: TextStyle) throws -> String {
        if output.json { return try JSONOutput.text(report) }
        guard output.quiet else { return DoctorText(report: report, style: style).text }
        return report.all.filter { $0.status == .problem }
            .map { "\($0.name): \($0.message); \($0.remedy ?? "")\n" }.joined()
    }
}

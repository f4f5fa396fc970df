import Glibc
import SockaliveCore

/// One line on a terminal that says how far a probe is, once it takes longer than a second; then it goes.
final class ProgressLine {
    private let isShown: Bool
    private let start = ContinuousClock.now
    private var lastSecond: Int64 = 0

    init(_ output: OutputOptions) {
        isShown = !output.quiet && isatty(STDERR_FILENO) == 1
    }

    func update(_ progress: ProbeRun.Progress) {
        let second = start.duration(to: .now).components.seconds
        guard isShown, second > lastSecond else { return }
        lastSecond = second
        let silent = progress.candidates - progress.answered
        StandardStreams.terminal(
            "\rsockalive: probing for \(second)s: \(progress.answered) answered, \(silent) still silent"
                + TextStyle.eraseToEnd)
    }

    func clear() {
        if lastSecond > 0 { StandardStreams.terminal("\r" + TextStyle.eraseToEnd) }
    }
}

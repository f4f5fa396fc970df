import Glibc
import SockaliveCore
import SystemPackage

/// What a run leaves for those who were not there: the system log's lines and the metrics file.
struct RunRecorder {
    private let limits: RunOptions
    private let reporter: Reporter
    private let rules: RuleSet
    private let start = ContinuousClock.now

    init(_ limits: RunOptions, _ reporter: Reporter, _ rules: RuleSet) {
        self.limits = limits
        self.reporter = reporter
        self.rules = rules
    }

    /// False if the metrics could not be written.
    func record(_ outcome: RunOutcome) -> Bool {
        SyslogReporter(limits, reporter)?.write(outcome)
        do throws(Unwritten) {
            try writeMetrics(outcome)
            return true
        } catch {
            StandardStreams.error(error.line)
            return false
        }
    }

    /// Why it could not do its work at all. The metrics stay those of the last run that could.
    func record(_ error: RunError) {
        SyslogReporter(limits, reporter)?.write(error)
    }

    struct Unwritten: Error {
        let line: String
    }

    /// - Parameter guards: of a watch that guards; the pinned ones are added.
    func writeMetrics(_ outcome: RunOutcome, guards: [GuardSample] = []) throws(Unwritten) {
        guard let file = limits.metrics else { return }
        do throws(Errno) {
            try write(metrics(outcome, guards + GuardSample.pinned).text, to: file)
        } catch {
            throw Unwritten(
                line: "the metrics file \(UntrustedText(file).escaped) cannot be written: \(Self.remedy(for: error))")
        }
    }

    /// The file may lie on a file server that is down. So a worker writes it, and holds a lock meanwhile: while one
    /// hangs there, no other joins it.
    private func write(_ text: String, to file: String) throws(Errno) {
        let lock = RunOptions.file(beside: limits.lock ?? RunOptions.defaultLock, ".metrics")
        var error = Errno.timedOut
        let time = .seconds(limits.timeout.count) - start.duration(to: .now)
        do {
            _ = try Supervisor(control: RunControl(limit: nil), time: time).run(
                { output in
                    var code: Int32 = 0
                    do throws(Errno) {
                        let held = limits.noLock ? nil : try lock.map { path throws(Errno) in try RunLock(path: path) }
                        defer { withExtendedLifetime(held) {} }
                        try AtomicFile.write(text, to: file, mode: 0o644)
                    } catch {
                        code = error.rawValue
                    }
                    output.write([UInt8(clamping: code)])
                },
                receive: { bytes in
                    if let code = bytes.popLast() { error = Errno(rawValue: Int32(code)) }
                })
        } catch let failure {
            throw failure as? Errno ?? .ioError
        }
        if error.rawValue != 0 { throw error }
    }

    private static func remedy(for error: Errno) -> String {
        switch error {
        case .fileExists: "that is no regular file; name another with --metrics"
        case .noSuchFileOrDirectory: "its folder is missing; create it, or name another with --metrics"
        case .timedOut, .wouldBlock: "its file system does not answer; look at that, or name another with --metrics"
        case .noSpace: "\(error); make room, the file is as the last run left it"
        default: "\(error); name another with --metrics"
        }
    }

    private func metrics(_ outcome: RunOutcome, _ guards: [GuardSample]) -> Metrics {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let time = Double(now.tv_sec) + Double(now.tv_nsec / 1_000_000) / 1000
        let duration = start.duration(to: .now) / .seconds(1)
        return Metrics(outcome.results, outcome.failures, rules: rules, guards: guards, time: time, duration: duration)
    }
}

extension RunStatus {
    /// A run that did its work, and could not tell of it, has failed all the same.
    func failed(unless isRecorded: Bool) -> RunStatus {
        isRecorded || self != .done ? self : .someFailed
    }
}

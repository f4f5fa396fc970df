import SockaliveCore
import SystemPackage

/// Writes to the system log what changed and what failed: the same failure once and then hourly.
struct SyslogReporter {
    private let log = SystemLog()
    private let reporter: Reporter
    /// Where the reported failures are kept from run to run; nil where no folder is for that.
    private let throttleFile: String?

    /// nil if no log is wanted.
    init?(_ limits: RunOptions, _ reporter: Reporter) {
        guard limits.syslog else { return nil }
        self.reporter = reporter
        // Beside the lock that guards it: `/run/sockalive.lock`, `/run/sockalive.failures`.
        throttleFile = RunOptions.file(beside: limits.lock ?? RunOptions.defaultLock, ".failures")
    }

    func write(_ outcome: RunOutcome) {
        withThrottle { throttle in
            log.write(outcome.results, &throttle)
            log.write(outcome.failures, &throttle)
        }
    }

    /// Why a run could not do its work at all.
    func write(_ error: RunError) {
        withThrottle { throttle in
            guard throttle.isDue(runFailure: "EXIT\(error.status.rawValue)") else { return }
            log.write(LogLine(failure: error.line))
            if log.error != nil { throttle.forgetRun() }
        }
    }

    private func withThrottle(_ body: (inout FailureThrottle) -> Void) {
        let loaded = throttleFile.map { FailureThrottle(file: $0) } ?? FailureThrottle()
        var throttle = loaded
        body(&throttle)
        if let error = log.error { reporter.message(Self.complaint(error)) }
        if throttle != loaded { save(throttle) }
    }

    static func complaint(_ error: Errno) -> String {
        "the system log takes no lines (\(error)): is a syslog daemon behind /dev/log?"
    }

    private func save(_ throttle: FailureThrottle) {
        guard let throttleFile else { return }
        do throws(Errno) {
            try throttle.save(to: throttleFile)
        } catch {
            reporter.step(
                "\(UntrustedText(throttleFile).escaped) cannot be written (\(error)): failures are logged again")
        }
    }
}

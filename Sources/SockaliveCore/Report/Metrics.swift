/// The numbers of a run in Prometheus's text format
/// (https://prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4).
package struct Metrics: Sendable {
    private let summary: Summary
    private let protected: Int
    private let longestIdle: Double
    /// Seconds since 1970.
    private let time: Double
    /// Seconds.
    private let duration: Double

    package init(
        _ results: [SocketResult], _ failures: [ProcessFailure] = [], time: Double, duration: Double
    ) {
        summary = Summary(results, failures)
        protected = results.count { $0.verdict == .protected }
        longestIdle = results.compactMap(\.idleSeconds).max() ?? 0
        self.time = time
        self.duration = duration
    }

    package var text: String {
        [
            gauge("candidates", "Sockets that the last run found.", summary.candidates),
            gauge("protected", "Candidates that the firewall does not drop.", protected),
            gauge("set", "Candidates whose keepalive the last run changed.", summary.set),
            gauge("failed", "Candidates that could not be brought where they should be.", summary.failed),
            gauge("answered", "Candidates whose peer answered a probe; 0 where none was sent.", summary.answered ?? 0),
            gauge("silent", "Candidates whose peer answered no probe; 0 where none was sent.", summary.silent ?? 0),
            gauge("longest_idle_seconds", "Idle time of the candidate that has been idle longest.", longestIdle),
            gauge("last_run_timestamp_seconds", "When the last run ended, since 1970.", time),
            gauge("last_run_duration_seconds", "How long the last run took.", duration),
            gauge("build_info", "The version that ran last.", 1, labels: "{version=\"\(sockaliveVersion)\"}"),
        ].joined()
    }

    private func gauge(_ name: String, _ help: String, _ value: some Numeric, labels: String = "") -> String {
        let name = "sockalive_\(name)"
        return "# HELP \(name) \(help)\n# TYPE \(name) gauge\n\(name)\(labels) \(value)\n"
    }
}

/// How a run ended, as an exit code (from sysexits.h where it has one).
package enum RunStatus: Int32, Sendable {
    case done = 0
    case someFailed = 1
    case noCandidate = 3
    case usage = 64
    case unsupported = 69
    case locked = 75
    case noPermission = 77

    /// - Parameters:
    ///   - require: a run without any candidate is a failure.
    ///   - check: a socket that is not protected is a failure.
    ///   - processFailures: of matching processes that could not be looked at.
    package init(
        results: [SocketResult], processFailures: [ProcessFailure] = [], require: Bool = false, check: Bool = false
    ) {
        let failures = results.compactMap(\.failure) + processFailures.map(\.failure)
        let total = results.count + processFailures.count
        if total == 0 {
            self = require ? .noCandidate : .done
        } else if failures.count == total, failures.allSatisfy({ $0.kind == .permission }) {
            self = .noPermission
        } else if failures.count == total, failures.allSatisfy({ $0.kind == .unsupported }) {
            self = .unsupported
        } else if !failures.isEmpty || results.contains(where: { $0.probe?.answered == false }) {
            self = .someFailed
        } else if check, results.contains(where: { $0.verdict != .protected }) {
            self = .someFailed
        } else {
            self = .done
        }
    }
}

/// The numbers of a run in Prometheus's text format
/// (https://prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4).
///
/// What is counted is counted for each rule, in its label `rule`. A rule that means no socket has zeros, so that an
/// alert can tell it from a rule that is not there.
package struct Metrics: Sendable {
    /// A label makes a time series of each metric, for ever. The rules beyond these share one.
    static let maxLabels = 100
    static let maxLabelLength = 256
    static let otherRules = "(other rules)"
    static let unknownRule = "(unknown rule)"

    private struct Counts: Sendable {
        let label: String
        let summary: Summary
        let protected: Int
        let longestIdle: Double
    }

    private let counts: [Counts]
    private let guards: [GuardSample]
    /// nil where there is one rule.
    private let failuresOfUnknownRule: Int?
    /// Seconds since 1970.
    private let time: Double
    /// Seconds.
    private let duration: Double

    /// - Parameter failures: of matching processes that could not be looked at. They count as failed; which of several
    ///   rules they match is not known.
    package init(
        _ results: [SocketResult], _ failures: [ProcessFailure] = [], rules: RuleSet, guards: [GuardSample] = [],
        time: Double, duration: Double
    ) {
        self.guards = Array(guards.prefix(Self.maxLabels))
        let (labels, places) = Self.labels(rules.rules)
        var groups = [[SocketResult]](repeating: [], count: labels.count)
        for result in results where places.indices.contains(result.rule) {
            groups[places[result.rule]].append(result)
        }
        let isOne = labels.count == 1
        counts = zip(labels, groups).map { label, results in
            Counts(
                label: label, summary: Summary(results, isOne ? failures : []),
                protected: results.count { $0.verdict == .protected },
                longestIdle: results.compactMap(\.idleSeconds).max() ?? 0)
        }
        failuresOfUnknownRule = isOne ? nil : failures.count
        self.time = time
        self.duration = duration
    }

    /// The distinct labels, and for each rule the place of its own. Two rules of one text are one to whoever reads it,
    /// and a sample that is there twice would make Prometheus refuse the file.
    private static func labels(_ rules: [Rule]) -> (labels: [String], places: [Int]) {
        var labels: [String] = []
        var placeByLabel: [String: Int] = [:]
        let places = rules.map { rule in
            let own = label(rule.text)
            let label = placeByLabel[own] == nil && labels.count >= maxLabels ? otherRules : own
            if let place = placeByLabel[label] { return place }
            placeByLabel[label] = labels.count
            labels.append(label)
            return labels.count - 1
        }
        return (labels, places)
    }

    private static func label(_ text: String) -> String {
        text.count > maxLabelLength ? text.prefix(maxLabelLength - 1) + "…" : text
    }

    package var text: String {
        [
            gauges("candidates", "Sockets that the last run found.") { $0.summary.candidates },
            gauges("protected", "Candidates that the firewall does not drop.") { $0.protected },
            gauges("set", "Candidates whose keepalive the last run changed.") { $0.summary.set },
            gauges("failed", "Candidates that could not be brought where they should be.") { $0.summary.failed },
            failuresOfUnknownRule.map { sample("failed", $0, label: ("rule", Self.unknownRule)) } ?? "",
            gauges("answered", "Candidates whose peer answered a probe; 0 where none was sent.") {
                $0.summary.answered ?? 0
            },
            gauges("silent", "Candidates whose peer answered no probe; 0 where none was sent.") {
                $0.summary.silent ?? 0
            },
            gauges("longest_idle_seconds", "Idle time of the candidate that has been idle longest.") { $0.longestIdle },
            guardText,
            gauge("last_run_timestamp_seconds", "When the last run ended, since 1970.", time),
            gauge("last_run_duration_seconds", "How long the last run took.", duration),
            gauge("build_info", "The version that ran last.", 1, label: ("version", sockaliveVersion)),
        ].joined()
    }

    /// Nothing where there is no guard. Two guards of one place and cgroup are one to whoever reads it.
    private var guardText: String {
        var places: [String: (isActive: Bool, treated: UInt64, kept: UInt64)] = [:]
        for sample in guards {
            let labels =
                "{place=\"\(Self.escaped(Self.label(sample.place)))\","
                + "cgroup=\"\(Self.escaped(Self.label(sample.cgroup)))\"}"
            var entry = places[labels] ?? (false, 0, 0)
            entry.isActive = entry.isActive || sample.isActive
            entry.treated += sample.counts?.treated ?? 0
            entry.kept += sample.counts?.kept ?? 0
            places[labels] = entry
        }
        guard !places.isEmpty else { return "" }
        let sorted = places.sorted { $0.key < $1.key }
        func lines(_ name: String, _ value: ((isActive: Bool, treated: UInt64, kept: UInt64)) -> UInt64) -> String {
            sorted.map { "sockalive_\(name)\($0.key) \(value($0.value))\n" }.joined()
        }
        return header("guarded", "Whether the guard of a place is attached; 0: its cgroup is gone.")
            + lines("guarded") { $0.isActive ? 1 : 0 }
            + header("guard_treated_connections", "New connections that the guard gave keepalive.")
            + lines("guard_treated_connections") { $0.treated }
            + header("guard_kept_connections", "New connections whose program had keepalive on itself.")
            + lines("guard_kept_connections") { $0.kept }
    }

    private func gauges(_ name: String, _ help: String, _ value: (Counts) -> some Numeric) -> String {
        header(name, help) + counts.map { sample(name, value($0), label: ("rule", $0.label)) }.joined()
    }

    private func gauge(
        _ name: String, _ help: String, _ value: some Numeric, label: (name: String, value: String)? = nil
    ) -> String {
        header(name, help) + sample(name, value, label: label)
    }

    private func header(_ name: String, _ help: String) -> String {
        "# HELP sockalive_\(name) \(help)\n# TYPE sockalive_\(name) gauge\n"
    }

    private func sample(_ name: String, _ value: some Numeric, label: (name: String, value: String)?) -> String {
        let labels = label.map { "{\($0.name)=\"\(Self.escaped($0.value))\"}" } ?? ""
        return "sockalive_\(name)\(labels) \(value)\n"
    }

    /// Of a label's value, a backslash, a quote and a line feed are escaped.
    private static func escaped(_ value: String) -> String {
        var text = String.UnicodeScalarView()
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\\", "\"": text.append(contentsOf: ["\\", scalar])
            case "\n": text.append(contentsOf: ["\\", "n"])
            default: text.append(scalar)
            }
        }
        return String(text)
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
        let failures = results.indices.compactMap { results[$0].failure } + processFailures.map(\.failure)
        let total = results.count + processFailures.count
        if total == 0 {
            self = require ? .noCandidate : .done
        } else if failures.count == total, failures.allSatisfy({ $0.kind == .permission }) {
            self = .noPermission
        } else if failures.count == total, failures.allSatisfy({ $0.kind == .unsupported }) {
            self = .unsupported
        } else if !failures.isEmpty || results.indices.contains(where: { results[$0].probe?.answered == false }) {
            self = .someFailed
        } else if check, results.contains(where: { $0.verdict != .protected }) {
            self = .someFailed
        } else {
            self = .done
        }
    }
}

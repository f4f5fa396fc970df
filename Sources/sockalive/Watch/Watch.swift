import Glibc
import SockaliveCore

/// Rounds of injection until a signal ends them.
struct Watch {
    private var target: Target
    private let config: ConfigOptions
    private let limits: RunOptions
    private let reporter: Reporter
    private let manager = ServiceManager.ofEnvironment
    private let log: SystemLog?
    private var memory = FailureMemory()
    private var troubles = Troubles()
    private var isReady = false

    init(target: Target, config: ConfigOptions, limits: RunOptions, reporter: Reporter) {
        self.target = target
        self.config = config
        self.limits = limits
        self.reporter = reporter
        log = limits.syslog ? SystemLog() : nil
    }

    mutating func run(every: Seconds) throws {
        let forever = RunControl(limit: nil)
        while forever.stopReason == nil {
            let start = ContinuousClock.now
            if RunControl.takeHangup() { reread() }
            try round()
            rest(until: start + .seconds(every.count), forever)
        }
        manager.tell("STOPPING=1", "STATUS=stopped by a signal")
    }

    private mutating func round() throws {
        let record = RunRecord(limits, reporter)
        var lines: [String] = []
        do throws(Hindrance) {
            let results = try Journey.round(target, RunControl(limit: limits.timeout), reporter)
            lines += tell(results)
            do throws(RunRecord.Unwritten) {
                try record.writeMetrics(results)
            } catch {
                lines.append(error.line)
            }
            manager.tell(isReady ? "WATCHDOG=1" : "READY=1", "STATUS=\(Self.status(results))")
        } catch {
            // A signal may have ended the search: the watch is over, and nothing failed.
            if isStopped { return }
            lines.append(error.line)
            // The first round says whether this machine lets it work at all.
            guard isReady else {
                StandardStreams.error(error.line)
                throw error.status
            }
        }
        troubles.news(lines).forEach(complain)
        isReady = true
    }

    private var isStopped: Bool { RunControl(limit: nil).stopReason != nil }

    private static func status(_ results: [SocketResult]) -> String {
        let summary = Summary(results)
        let shielded = results.count { $0.verdict == .protected }
        return "\(summary.candidates) candidates, \(shielded) protected, \(summary.failed) failed"
    }

    /// Prints and logs what is news.
    ///
    /// - Returns: what stood in the way of that.
    private mutating func tell(_ results: [SocketResult]) -> [String] {
        // What a signal kept from being reached is no failure: the watch is over.
        let news = memory.news(isStopped ? results.filter { $0.failure == nil } : results)
        for result in news where result.failure == nil && result.action == .set { reporter.change(result) }
        reporter.failures(news)
        log?.forgetError()
        for line in news.compactMap(LogLine.init) { log?.write(line) }
        return log?.error.map { [Logbook.complaint($0)] } ?? []
    }

    private func complain(_ line: String) {
        StandardStreams.error(line)
        log?.write(LogLine(failure: line))
    }

    /// Rules that are wrong do not replace those that were right.
    private mutating func reread() {
        do {
            target = try config.reread() ?? target
            target.warnIfTooSlow(reporter)
        } catch {
            complain(ForeignText(ConfigOptions.message(for: error)).escaped + "; the rules stay as they were")
        }
    }

    private func rest(until end: ContinuousClock.Instant, _ control: RunControl) {
        while control.stopReason == nil && !RunControl.isHangupPending && ContinuousClock.now < end {
            let left = ContinuousClock.now.duration(to: end)
            RunControl.rest(min(left, manager.watchdogInterval ?? left))
            if control.stopReason == nil { manager.tell("WATCHDOG=1") }
        }
    }
}

/// What goes wrong beside the sockets, told when it begins and then hourly.
private struct Troubles {
    private var told: [String: Int] = [:]

    /// Those of a round's lines that are to be told.
    mutating func news(_ lines: [String], now: Int = FailureMemory.now) -> [String] {
        told = told.filter { lines.contains($0.key) && now - $0.value < FailureMemory.repeatAfter }
        return lines.filter { told.updateValue(told[$0] ?? now, forKey: $0) == nil }
    }
}

extension ServiceManager {
    fileprivate static var ofEnvironment: ServiceManager {
        func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        return ServiceManager(
            address: variable("NOTIFY_SOCKET"), watchdogMicroseconds: variable("WATCHDOG_USEC"),
            watchdogProcess: variable("WATCHDOG_PID"), ownProcess: getpid())
    }
}

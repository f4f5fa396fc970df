import ArgumentParser
import Glibc
import SockaliveCore

struct WatchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch",
        abstract: "Inject over and over, in the foreground, until stopped.")

    @OptionGroup var selection: SelectionOptions
    @OptionGroup var keepalive: KeepaliveOptions
    @OptionGroup var config: ConfigOptions
    @OptionGroup var limits: RunOptions
    @OptionGroup var output: OutputOptions

    @Option(
        help: .init("How often (default: 5s).", valueName: "d"),
        transform: ArgumentTransform.seconds)
    var every = Seconds(5)

    @Flag(name: .customLong("guard"), help: "Also guard the places of the rules: new connections at once.")
    var isGuarding = false

    func validate() throws {
        if limits.require { throw ValidationError("--require is for one run: a watch waits for candidates") }
        if output.json { throw ValidationError("--json is one document: a watch has no end to write it at") }
    }

    func run() throws {
        // Before the file is read: what is written meanwhile is read again.
        let version = config.fileVersion
        let configuration = try config.runConfiguration(selection, keepalive)
        RunControl.catchSignals()
        RunControl.wakeOnHangup()
        let reporter = Reporter(output: output)
        configuration.warnIfTooSlow(reporter)
        var watch = Watch(
            configuration: configuration, config: config, version: version, limits: limits, reporter: reporter)
        if isGuarding { try watch.startGuarding() }
        try watch.run(every: every)
    }
}

/// Rounds of injection until a signal ends them.
struct Watch {
    private var configuration: RunConfiguration
    private let config: ConfigOptions
    /// Of the file of rules, as it was read last.
    private var version: FileVersion?
    private let limits: RunOptions
    private let reporter: Reporter
    private let manager = ServiceManager.ofEnvironment
    private let log: SystemLog?
    private var printed = FailureThrottle()
    private var logged = FailureThrottle()
    private var messages = MessageThrottle()
    /// Another run may well take some rounds.
    private var skips = MessageThrottle(delay: 60)
    /// The service manager has been told so.
    private var isReady = false
    private var hasWorked = false
    private let feeder: WatchdogFeeder
    private var guarding: WatchGuard?

    init(
        configuration: RunConfiguration, config: ConfigOptions, version: FileVersion?, limits: RunOptions,
        reporter: Reporter
    ) {
        self.configuration = configuration
        self.config = config
        self.version = version
        self.limits = limits
        self.reporter = reporter
        log = limits.syslog ? SystemLog() : nil
        feeder = WatchdogFeeder(manager: manager)
    }

    /// Guards the places of the rules for as long as this process lives.
    mutating func startGuarding() throws {
        let (wishes, others) = configuration.guardWishes
        guard !wishes.isEmpty else {
            throw ValidationError(
                "--guard is for rules of whole places: --unit, --container, --pod, --cgroup or --any-process")
        }
        do throws(GuardFailure) {
            guarding = try WatchGuard()
        } catch {
            StandardStreams.error(error.line)
            throw error.status
        }
        for rule in others {
            reporter.message(
                "\(UntrustedText(rule.text).escaped): a guard would treat more than this rule means; its new connections "
                    + "wait for the next round")
        }
    }

    mutating func run(every: Seconds) throws {
        let forever = RunControl(limit: nil)
        while forever.stopReason == nil {
            let start = ContinuousClock.now
            let isAsked = RunControl.takeHangup()
            let version = config.fileVersion
            if isAsked || version != self.version { reread(version) }
            try round()
            // However long a round takes, the lock is free, and the processor too, for half of the time.
            let end = ContinuousClock.now
            sleep(until: max(start + .seconds(every.count), end + start.duration(to: end)), forever)
        }
        manager.notify("STOPPING=1", "STATUS=stopped by a signal")
    }

    /// - Returns: what stood in the way.
    private func guardPlaces() -> [String] {
        guard let guarding else { return [] }
        let round = guarding.update(configuration.guardWishes.wishes)
        for path in round.made { reporter.message("\(UntrustedText(path).escaped): new connections are guarded") }
        return round.failures.map(\.line)
    }

    private mutating func round() throws {
        // First, so that no connection is born between the search and the guard; and whoever holds the lock.
        let unguarded = guardPlaces()
        do throws(RunError) {
            // Released between the rounds, for whoever runs by hand or before a backup.
            let lock = try limits.takeLock(reporter)
            defer { withExtendedLifetime(lock) {} }
            try work(unguarded)
        } catch {
            // A signal may have ended the search: the watch is over, and nothing failed.
            if isStopped { return }
            if error.status == .locked { return skip(error) }
            // The first round says whether this machine lets it work at all.
            guard hasWorked else { throw error.printed() }
            messages.due([error.line]).forEach(complain)
        }
    }

    /// - Parameter unguarded: what stood in the way of guards.
    private mutating func work(_ unguarded: [String]) throws(RunError) {
        let recorder = RunRecorder(limits, reporter, configuration.rules)
        let run = Run(
            command: "watch", mode: .keepalive(.inject), configuration: configuration, output: reporter.output,
            control: RunControl(limit: limits.timeout), limit: limits.timeout, limits: limits)
        // The manager's watchdog bites if this process hangs, not if a target does.
        let outcome = try run.outcome(
            before: feeder.hung.union(run.hungBefore), whileWaiting: { [feeder] in feeder.feed() },
            rememberHung: { [feeder] in feeder.remember($0, run) })
        feeder.remember(outcome.hung, run)
        let results = outcome.results
        var lines = unguarded + reportResults(results)
        // A process that hangs is told of as soon as it does, and then hourly.
        lines += isStopped ? [] : outcome.failures.map { Reporter.line($0) }
        do throws(RunRecorder.Unwritten) {
            try recorder.writeMetrics(outcome, guards: guarding?.samples ?? [])
        } catch {
            lines.append(error.line)
        }
        hasWorked = true
        _ = skips.due([])
        report(Self.status(results, outcome.failures))
        messages.due(lines).forEach(complain)
    }

    /// Another run is at work; the next round comes soon.
    private mutating func skip(_ locked: RunError) {
        report("another run holds the lock")
        skips.due(["\(locked.line); until then no new connection is protected by this watch"]).forEach(complain)
    }

    private mutating func report(_ status: String) {
        manager.notify(isReady ? "WATCHDOG=1" : "READY=1", "STATUS=\(status)")
        isReady = true
    }

    private var isStopped: Bool { RunControl(limit: nil).stopReason != nil }

    private static func status(_ results: [SocketResult], _ failures: [ProcessFailure]) -> String {
        let summary = Summary(results, failures)
        let shielded = results.count { $0.verdict == .protected }
        return "\(summary.candidates) candidates, \(shielded) protected, \(summary.failed) failed"
    }

    /// Prints and logs what is due.
    ///
    /// - Returns: what stood in the way of that.
    private mutating func reportResults(_ results: [SocketResult]) -> [String] {
        // What a signal kept from being reached is no failure: the watch is over.
        let reached = isStopped ? results.filter { $0.failure == nil } : results
        let due = printed.due(reached)
        let changed = due.filter { $0.failure == nil && $0.action == .set }
        changed.forEach(reporter.change)
        reporter.userTimeouts(changed)
        reporter.failures(due)
        log?.forgetError()
        log?.write(reached, &logged)
        return log?.error.map { [SyslogReporter.complaint($0)] } ?? []
    }

    private func complain(_ line: String) {
        StandardStreams.error(line)
        log?.write(LogLine(failure: line))
    }

    /// Rules that are wrong do not replace those that were right. They are told of once: the file is read again when it
    /// has changed.
    private mutating func reread(_ version: FileVersion?) {
        self.version = version
        do {
            configuration = try config.reread() ?? configuration
            configuration.warnIfTooSlow(reporter)
        } catch {
            complain(UntrustedText(ConfigOptions.message(for: error)).escaped + "; the rules stay as they were")
        }
    }

    private func sleep(until end: ContinuousClock.Instant, _ control: RunControl) {
        Supervisor.reapAll()
        while control.stopReason == nil && !RunControl.isHangupPending && ContinuousClock.now < end {
            let left = ContinuousClock.now.duration(to: end)
            RunControl.sleep(min(left, manager.watchdogInterval ?? left))
            if control.stopReason == nil { manager.notify("WATCHDOG=1") }
        }
    }
}

/// Tells the service manager during a round, too, that this process lives.
private final class WatchdogFeeder {
    private let manager: ServiceManager
    private var last = ContinuousClock.now
    /// Processes that hung in the last round, if the file cannot be written.
    private(set) var hung: Set<HungProcess> = []

    init(manager: ServiceManager) {
        self.manager = manager
    }

    func remember(_ hung: Set<HungProcess>, _ run: Run) {
        self.hung = hung
        run.rememberHung(hung)
    }

    func feed() {
        guard let interval = manager.watchdogInterval, .now - last >= interval else { return }
        last = .now
        manager.notify("WATCHDOG=1")
    }
}

extension RunConfiguration {
    /// What a guard can follow, and the rules that it cannot.
    fileprivate var guardWishes: (wishes: [GuardWish], others: [Rule]) {
        var (wishes, others): ([GuardWish], [Rule]) = ([], [])
        for rule in rules.rules {
            if let own = GuardWish.wishes(of: rule) { wishes += own } else { others.append(rule) }
        }
        return (wishes, others)
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

/// Limits repeated messages: one is reported when it has lasted for a while, and then hourly.
struct MessageThrottle {
    private struct Entry {
        let start: Int
        var reported: Int?
    }

    /// Seconds that a message has to last before it is reported.
    private let delay: Int
    private var entries: [String: Entry] = [:]

    init(delay: Int = 0) {
        self.delay = delay
    }

    /// Those of a round's lines that are to be told; what is not among them is over.
    mutating func due(_ lines: [String], now: Int = FailureThrottle.now) -> [String] {
        entries = entries.filter { lines.contains($0.key) }
        return lines.filter { isDue($0, now) }
    }

    private mutating func isDue(_ line: String, _ now: Int) -> Bool {
        // A container that was restored elsewhere may have another clock: what was told by the old one is told anew.
        var entry = entries[line].flatMap { $0.start <= now ? $0 : nil } ?? Entry(start: now)
        defer { entries[line] = entry }
        guard now - entry.start >= delay else { return false }
        guard FailureThrottle.isDue(lastReported: entry.reported, now: now) else { return false }
        entry.reported = now
        return true
    }
}

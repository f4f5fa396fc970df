/// Judges from outside whether a worker makes progress.
///
/// Two things are held against it: one call that does not return; and one process that costs a lot of time in calls that
/// do, such as a socket whose lock is held for 0.7 s each time it is asked for.
struct Stall {
    enum Finding {
        case hung, slow
    }

    /// Asleep without progress for so long, a worker hangs.
    private let limit: Duration
    private var mark: UInt64
    private var time = Duration.zero
    private var lastLook: ContinuousClock.Instant
    /// The process that the worker was at, at the last look.
    private var pid: Int32 = 0
    /// How long the worker has slept at each process, less what its steps may take.
    private var sleepTimes: [Int32: Duration] = [:]

    /// A worker that runs may be waiting for a processor: it gets so many times as long.
    private static let runningFactor = 3
    /// No more is counted from one look to the next: if the whole machine stood still (SIGSTOP, a paused virtual
    /// machine), the worker did, too.
    private static let maxInterval = Duration.milliseconds(100)
    /// A step takes some microseconds; a hold by ptrace on a busy machine, which is several steps, some milliseconds.
    private static let stepTime = Duration.milliseconds(1)

    init(_ page: WorkerPage, _ limit: Duration, now: ContinuousClock.Instant = .now) {
        lastLook = now
        self.limit = limit
        mark = page.mark
    }

    /// To be called every few milliseconds.
    ///
    /// - Parameter isRunning: whether the worker has, or waits for, a processor.
    mutating func look(
        _ page: WorkerPage, now: ContinuousClock.Instant = .now, isRunning: () -> Bool
    ) -> Finding? {
        let passed = min(now - lastLook, Self.maxInterval)
        lastLook = now
        let mark = page.mark
        let steps = WorkerPage.steps(from: self.mark, to: mark)
        self.mark = mark
        let position = page.position
        defer { pid = position.pid }
        let mayBeSlow = position.pid != 0 && position.pid == pid && position.step != .waiting
        if steps > 0 {
            time = .zero
            guard mayBeSlow else { return nil }
        }
        let isRunning = isRunning()
        if steps == 0 { time += isRunning ? passed / Self.runningFactor : passed }
        if time > (page.isHoldUnsafe ? Supervisor.unsafeHoldTime : limit) { return .hung }
        guard mayBeSlow, !isRunning, !page.isHoldUnsafe else { return nil }
        let sleepTime = max(.zero, sleepTimes[pid, default: .zero] + passed - Self.stepTime * steps)
        sleepTimes[pid] = sleepTime
        return sleepTime > limit * 4 / 3 ? .slow : nil
    }
}

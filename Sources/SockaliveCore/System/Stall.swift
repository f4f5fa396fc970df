/// Judges from outside whether a worker makes progress: one call that does not return is held against it.
///
/// Calls that do return, however slowly, are the worker's own affair (``KeepaliveRun``): to kill it for those would hurt
/// who has done nothing.
struct Stall {
    /// Asleep without progress for so long, a worker hangs.
    private let limit: Duration
    private(set) var mark: UInt64
    private var time = Duration.zero
    private var lastLook: ContinuousClock.Instant

    /// A worker that runs may be waiting for a processor: it gets so many times as long.
    private static let runningFactor = 3
    /// No more is counted from one look to the next: if the whole machine stood still (SIGSTOP, a paused virtual
    /// machine), the worker did, too.
    private static let maxInterval = Duration.milliseconds(100)

    init(_ page: WorkerPage, _ limit: Duration, now: ContinuousClock.Instant = .now) {
        lastLook = now
        self.limit = limit
        mark = page.mark
    }

    /// Whether it hangs. To be called every few milliseconds.
    ///
    /// - Parameter isRunning: whether the worker has, or waits for, a processor.
    mutating func lasts(
        _ page: WorkerPage, now: ContinuousClock.Instant = .now, isRunning: () -> Bool
    ) -> Bool {
        let passed = min(now - lastLook, Self.maxInterval)
        lastLook = now
        let mark = page.mark
        guard mark == self.mark else {
            self.mark = mark
            time = .zero
            return false
        }
        time += isRunning() ? passed / Self.runningFactor : passed
        return time > (page.isHoldUnsafe ? max(limit, Supervisor.unsafeHoldTime) : limit)
    }
}

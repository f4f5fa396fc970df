/// Judges from outside whether a worker makes progress: one call that does not return is held against it.
///
/// Calls that do return, however slowly, are the worker's own affair (``KeepaliveRun``): to kill it for those would hurt
/// who has done nothing.
struct Stall {
    /// Asleep without progress for so long, a thread of a worker hangs.
    private let limit: Duration
    private var threads: [Thread]
    private var lastLook: ContinuousClock.Instant

    private struct Thread {
        var mark: UInt64
        var time = Duration.zero
    }

    /// A worker that runs may be waiting for a processor: it gets so many times as long.
    private static let runningFactor = 3
    /// No more is counted from one look to the next: if the whole machine stood still (SIGSTOP, a paused virtual
    /// machine), the worker did, too.
    private static let maxInterval = Duration.milliseconds(100)

    init(_ page: WorkerPage, _ limit: Duration, now: ContinuousClock.Instant = .now) {
        lastLook = now
        self.limit = limit
        threads = (0..<WorkerThread.maxCount).map { Thread(mark: page.mark(of: $0)) }
    }

    /// Whether it hangs, and none of its threads is at work any more that does not: what such a thread has begun is not
    /// to be torn. As soon as one hangs, the others begin nothing new (``WorkerPage/isSharingOver``). They are given as
    /// long again. To be called every few milliseconds.
    ///
    /// - Parameter isRunning: whether a thread of the worker has, or waits for, a processor.
    mutating func lasts(
        _ page: WorkerPage, now: ContinuousClock.Instant = .now, isRunning: (Int) -> Bool
    ) -> Bool {
        let passed = min(now - lastLook, Self.maxInterval)
        lastLook = now
        let busy = page.busyThreads
        for number in threads.indices {
            let mark = page.mark(of: number)
            if mark != threads[number].mark || !busy.contains(number) {
                threads[number] = Thread(mark: mark)
            } else {
                threads[number].time += isRunning(number) ? passed / Self.runningFactor : passed
            }
        }
        let limit = page.isHoldUnsafe ? max(limit, Supervisor.unsafeHoldTime) : limit
        let longest = threads.map(\.time).max() ?? .zero
        guard longest > limit else { return false }
        page.isSharingOver = true
        return longest > limit * 2 || busy.allSatisfy { threads[$0].time > limit }
    }

    /// The threads that hang, after ``lasts(_:now:isRunning:)``.
    var hanging: [Int] { threads.indices.filter { threads[$0].time > limit } }

    /// Whether none of them has gone on since.
    func isStill(_ page: WorkerPage) -> Bool {
        hanging.allSatisfy { page.mark(of: $0) == threads[$0].mark }
    }
}

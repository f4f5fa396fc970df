import Testing

@testable import SockaliveCore

/// How a worker is judged from outside, with a clock that the tests move.
@Suite struct StallTests {
    /// Looks in intervals, for 10 s at most.
    ///
    /// - Parameter enter: what the worker does before the look of that number.
    /// - Returns: after how long it counts as hanging; nil if it never does.
    private func hang(
        isRunning: Bool = false, interval: Duration = .milliseconds(20), isHoldUnsafe: Bool = false,
        _ enter: (WorkerPage, Int) -> Void = { _, _ in }
    ) throws -> Duration? {
        let page = try #require(WorkerPage())
        page.store(isHoldUnsafe: isHoldUnsafe)
        let start = ContinuousClock.now
        var stall = Stall(page, .milliseconds(1500), now: start)
        return (1...Int(Duration.seconds(10) / interval)).first { number in
            enter(page, number)
            return stall.lasts(page, now: start + interval * number, isRunning: { _ in isRunning })
        }.map { interval * $0 }
    }

    @Test func `one call that does not return is a hang after the limit`() throws {
        let time = try hang { page, number in
            if number == 1 { page.store(WorkerPosition(step: .options, pid: 7)) }
        }
        #expect(try #require(time) < .milliseconds(1600))
    }

    @Test func `a worker that waits for a processor gets three times as long`() throws {
        let time = try hang(isRunning: true)
        #expect((Duration.seconds(4)...Duration.seconds(5)).contains(try #require(time)))
    }

    @Test func `a target that would be harmed by the worker's death keeps it for longer`() throws {
        let time = try hang(isHoldUnsafe: true)
        #expect(try #require(time) >= .seconds(5))
    }

    @Test func `calls that return, however slowly, are no hang`() throws {
        let time = try hang { page, number in
            if number % 50 == 0 { page.store(WorkerPosition(step: .options, pid: 7, inode: UInt64(number))) }
        }
        #expect(time == nil)
    }

    @Test func `a machine that stood still for an hour does not make the worker hang`() throws {
        let time = try hang(interval: .seconds(1)) { page, number in
            if number % 2 == 0 { page.store(WorkerPosition(step: .options, pid: 7)) }
        }
        #expect(time == nil)
    }

    // MARK: threads that share sockets

    /// The main thread waits for two others, of which the first hangs from the beginning.
    private func hangBesideAnother(_ enter: (WorkerPage, Int) -> Void) throws -> (time: Duration, hanging: [Int])? {
        let page = try #require(WorkerPage())
        let start = ContinuousClock.now
        page.store(WorkerPosition(step: .sharedSockets))
        page.store(WorkerPosition(step: .options, pid: 7, inode: 1), of: 1)
        var stall = Stall(page, .milliseconds(1500), now: start)
        for number in 1...500 {
            enter(page, number)
            let time = Duration.milliseconds(20) * number
            if stall.lasts(page, now: start + time, isRunning: { _ in false }) { return (time, stall.hanging) }
        }
        return nil
    }

    @Test func `a thread hangs, although another makes progress, and alone it is named`() throws {
        let found = try hangBesideAnother { page, number in
            let isOver = page.isSharingOver
            page.store(WorkerPosition(step: isOver ? .none : .options, pid: 8, inode: UInt64(number)), of: 2)
        }
        let hang = try #require(found)
        #expect(hang.time < .milliseconds(1600) && hang.hanging == [1])
    }

    @Test func `nothing is torn that another thread has begun, for as long as a hang takes`() throws {
        var end = 0
        let short = try hangBesideAnother { page, number in
            // It ends its socket 0.6 s after it was told to.
            if page.isSharingOver && end == 0 { end = number + 30 }
            let step = end > 0 && number >= end ? WorkerStep.none : .options
            page.store(WorkerPosition(step: step, pid: 8, inode: UInt64(number)), of: 2)
        }
        #expect((Duration.milliseconds(2050)...Duration.milliseconds(2200)).contains(try #require(short).time))
        let endless = try hangBesideAnother { page, number in
            page.store(WorkerPosition(step: .options, pid: 8, inode: UInt64(number)), of: 2)
        }
        let hang = try #require(endless)
        #expect((Duration.milliseconds(3000)...Duration.milliseconds(3100)).contains(hang.time) && hang.hanging == [1])
    }

    @Test func `two threads that hang are both named`() throws {
        let found = try hangBesideAnother { page, number in
            if number == 10 { page.store(WorkerPosition(step: .close, pid: 8, inode: 2), of: 2) }
        }
        let hang = try #require(found)
        #expect((Duration.milliseconds(1680)...Duration.milliseconds(1800)).contains(hang.time))
        #expect(hang.hanging == [1, 2])
    }

    @Test func `the main thread may wait for as long as others make progress, and no longer`() throws {
        let found = try hangBesideAnother { page, number in
            if number < 200 { page.store(WorkerPosition(step: .options, pid: 7, inode: UInt64(number)), of: 1) }
            if number == 200 { page.store(WorkerPosition(step: .none), of: 1) }
        }
        // They have ended, and it does not go on.
        let hang = try #require(found)
        #expect((Duration.milliseconds(5480)...Duration.milliseconds(5600)).contains(hang.time) && hang.hanging == [0])
    }
}

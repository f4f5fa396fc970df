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
            return stall.lasts(page, now: start + interval * number, isRunning: { isRunning })
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
}

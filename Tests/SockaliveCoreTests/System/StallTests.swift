import Testing

@testable import SockaliveCore

/// How a worker is judged from outside, with a clock that the tests move.
@Suite struct StallTests {
    private static let look = Duration.milliseconds(20)

    /// Looks every 20 ms, for 10 s at most.
    ///
    /// - Parameter enter: what the worker does before the look of that number.
    /// - Returns: what was found, and after how long.
    private func finding(
        isRunning: Bool = false, interval: Duration = look, isHoldUnsafe: Bool = false,
        _ enter: (WorkerPage, Int) -> Void
    ) throws -> (Stall.Finding, after: Duration)? {
        let page = try #require(WorkerPage())
        page.store(isHoldUnsafe: isHoldUnsafe)
        let start = ContinuousClock.now
        var stall = Stall(page, .milliseconds(1500), now: start)
        for number in 1...Int(Duration.seconds(10) / interval) {
            enter(page, number)
            let time = interval * number
            if let finding = stall.look(page, now: start + time, isRunning: { isRunning }) { return (finding, time) }
        }
        return nil
    }

    @Test func `one call that does not return is a hang after the limit`() throws {
        let found = try finding { page, number in
            if number == 1 { page.store(WorkerPosition(step: .options, pid: 7)) }
        }
        #expect(try #require(found).0 == .hung)
        #expect(try #require(found).after < .milliseconds(1600))
    }

    @Test func `a worker that waits for a processor gets three times as long`() throws {
        let found = try finding(isRunning: true) { _, _ in }
        #expect(try #require(found).0 == .hung)
        #expect((Duration.seconds(4)...Duration.seconds(5)).contains(try #require(found).after))
    }

    @Test func `a target that would be harmed by the worker's death keeps it for longer`() throws {
        let found = try finding(isHoldUnsafe: true) { _, _ in }
        #expect(try #require(found).after >= .seconds(5))
    }

    @Test func `calls that return, and take long in all, make their process slow`() throws {
        for interval in [1, 10] {
            let found = try finding { page, number in
                if number % interval == 0 { page.store(WorkerPosition(step: .options, pid: 7, inode: UInt64(number))) }
            }
            #expect(try #require(found).0 == .slow)
            #expect(try #require(found).after < .seconds(3))
        }
    }

    @Test func `a process with many quick steps, or other processes in between, are not slow`() throws {
        let quick = try finding { page, _ in
            for _ in 0..<20 { page.store(WorkerPosition(step: .options, pid: 7)) }
        }
        #expect(quick == nil)
        let others = try finding { page, number in
            page.store(WorkerPosition(step: .options, pid: Int32(number % 2 + 7)))
        }
        #expect(others == nil)
        let asleep = try finding { page, _ in page.store(WorkerPosition(step: .waiting, pid: 7)) }
        #expect(asleep == nil)
        let busy = try finding(isRunning: true) { page, _ in page.store(WorkerPosition(step: .options, pid: 7)) }
        #expect(busy == nil)
    }

    @Test func `a machine that stood still for an hour does not make the worker hang`() throws {
        let found = try finding(interval: .seconds(1)) { page, number in
            if number % 2 == 0 { page.store(WorkerPosition(step: .options, pid: 7)) }
        }
        #expect(found == nil)
    }
}

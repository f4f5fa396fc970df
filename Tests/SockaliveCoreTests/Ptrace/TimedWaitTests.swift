import Testing

@testable import SockaliveCore

/// Lines of `/proc/PID/task/TID/syscall`.
@Suite struct TimedWaitTests {
    private func wait(_ text: String) -> TimedWait? { SleepingCall(Array(text.utf8))?.wait }

    private static let stack64 = "0x7ffc8f20a0e8 0x7f7d2a318e2e\n"
    private static let stack32 = "0xffd2f2c0 0xf7f0a559\n"

    @Test(arguments: [
        ("232 0x4 0x7ffc 0x1 0x927c0 0x8 0x0", TimedWait.Timeout.milliseconds(600_000)),
        ("281 0x4 0x7ffc 0x1 0x3e8 0x0 0x8", .milliseconds(1000)),
        ("441 0x4 0x7ffc 0x1 0x7ffc1000 0x0 0x8", .timespec(0x7ffc_1000, isWide: true)),
        ("128 0x7ffc 0x0 0x7ffc2000 0x8 0x0 0x0", .timespec(0x7ffc_2000, isWide: true)),
        ("220 0x1 0x7ffc 0x1 0x7ffc3000 0x0 0x0", .timespec(0x7ffc_3000, isWide: true)),
    ]) func `a relative timeout of which the kernel stores no end begins anew`(line: String, timeout: TimedWait.Timeout)
    {
        #expect(wait("\(line) \(Self.stack64)")?.timeout == timeout)
    }

    @Test(arguments: [
        // epoll_wait without end and without a wait, semtimedop and sigtimedwait without a time
        "232 0x4 0x7ffc 0x1 0xffffffff 0x8 0x0", "232 0x4 0x7ffc 0x1 0x0 0x8 0x0", "220 0x1 0x7ffc 0x1 0x0 0x0 0x0",
        "128 0x7ffc 0x0 0x0 0x8 0x0 0x0",
        // futex, poll with a timeout, nanosleep, read
        "202 0x7f 0x189 0x0 0x0 0x0 0xffffffff", "7 0x7ffc 0x1 0xea60 0x0 0x0 0x0", "35 0x7ffc 0x0 0x0 0x0 0x0 0x0",
        "0 0x3 0x7ffc 0x1 0x0 0x0 0x0",
    ]) func `other waits lose nothing`(line: String) {
        #expect(wait("\(line) \(Self.stack64)") == nil)
        #expect(SleepingCall(Array("\(line) \(Self.stack64)".utf8))?.stackPointer == 0x7ffc_8f20_a0e8)
    }

    @Test(arguments: [
        ("256 0x4 0xffd2 0x1 0x927c0 0x0 0x0", TimedWait.Timeout.milliseconds(600_000)),
        ("177 0xffd2 0x0 0xffd21000 0x8 0x0 0x0", .timespec(0xffd2_1000, isWide: false)),
        ("117 0x4 0x1 0x1 0x0 0xffd2 0xffd23000", .timespec(0xffd2_3000, isWide: false)),
        ("421 0xffd2 0x0 0xffd24000 0x8 0x0 0x0", .timespec(0xffd2_4000, isWide: true)),
    ]) func `a program of 32 bits has other numbers and other times`(line: String, timeout: TimedWait.Timeout) {
        #expect(wait("\(line) \(Self.stack32)")?.timeout == timeout)
    }

    @Test(arguments: ["running\n", "", "-1 0x7ffc8f20a0e8 0x7f7d2a318e2e\n", "232 0x4 0x7ffc\n", "x y\n", "232 z\n"])
    func `what is no call has no wait`(line: String) {
        #expect(wait(line) == nil)
    }
}

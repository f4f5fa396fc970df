import Testing

@testable import SockaliveCore

@Suite struct ServiceManagerTests {
    private func interval(_ microseconds: String?, of process: String? = nil) -> Duration? {
        ServiceManager(
            address: nil, watchdogMicroseconds: microseconds, watchdogProcess: process, ownProcess: 42
        ).watchdogInterval
    }

    @Test func `the watchdog interval is half of the timeout`() {
        #expect(interval("60000000") == .seconds(30))
        #expect(interval("60000000", of: "42") == .seconds(30))
    }

    @Test(arguments: ["1", "2", "1000", "199999"]) func `a short timeout gives the minimal interval`(time: String) {
        #expect(interval(time) == .milliseconds(100))
    }

    @Test(arguments: [nil, "", "0", "-1", "x", "99999999999999999999"]) func `no time, no watchdog`(time: String?) {
        #expect(interval(time) == nil)
    }

    @Test func `another process's watchdog is ignored`() {
        #expect(interval("60000000", of: "43") == nil)
    }
}

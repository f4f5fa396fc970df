import Foundation
import Glibc
import Testing

@testable import SockaliveCore

@Suite struct HungProcessTests {
    @Test func `workers that were left behind are kept before all others`() throws {
        let path = "\(FileManager.default.temporaryDirectory.path)/sockalive-\(UUID().uuidString).hung"
        defer { unlink(path) }
        let worker = HungProcess.Worker(pid: 5, startTime: 7, step: .options)
        let left = HungProcess(pid: 77, leftBehind: worker, linkHung: nil)
        let others = (1000..<4000).map { HungProcess(pid: $0, leftBehind: nil, linkHung: nil) }
        try HungProcess.write(Set(others + [left]), to: path)
        let read = HungProcess.read(path)
        #expect(read.contains(left) && read.count < others.count && read.count > 1000)
    }

    @Test func `a number without a process is nothing to remember`() throws {
        func hung(_ pid: Int32) -> HungProcess { HungProcess(pid: pid, leftBehind: nil, linkHung: nil) }
        #expect(hung(getpid()).isThere && hung(1).isThere)
        // The highest number that a kernel can be told to give is one less (include/linux/threads.h, PID_MAX_LIMIT).
        #expect(!hung(4 << 20).isThere && !hung(0).isThere)
    }
}

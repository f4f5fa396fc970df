import Foundation
import Glibc
import Testing

@testable import SockaliveCore

private func socket(name: String = "beremote", inode: UInt64 = 7, pid: Int32 = 42) -> DiscoveredSocket {
    let local = Endpoint(address: IPAddress("198.51.100.1")!, port: 52576)
    let remote = Endpoint(address: IPAddress("192.0.2.1")!, port: 5633)
    return DiscoveredSocket(
        process: ProcessIdentity(
            pid: pid, name: UntrustedText(name), executable: nil, uid: 0, startTime: 99, networkNamespace: 1),
        holders: [SocketHolder(pid: pid, fd: 3)],
        row: SocketRow(
            family: .ipv4, local: local, remote: remote, state: .established, timer: .none, uid: 0, inode: inode))
}

private func failed(_ socket: DiscoveredSocket, _ code: SocketFailure) -> SocketResult {
    SocketResult(socket: socket, failure: code, isFailedAction: true)
}

private let denied = SocketFailure(.permission, .notPermitted, "no permission to reach into PID 42", remedy: "be root")

private func treated(_ socket: DiscoveredSocket, _ action: SocketAction) -> SocketResult {
    let off = KeepaliveSettings(enabled: false, idle: 7200, interval: 75, count: 9)
    let on = KeepaliveSettings(enabled: true, idle: 600, interval: 60, count: 50)
    return SocketResult(
        socket: socket,
        outcome: .init(before: off, after: on, planned: on, idleSeconds: 3, action: action),
        method: .pidfd, rights: .owner, pausedMicroseconds: 0)
}

@Suite struct LogLineTests {
    @Test func `a change is one line of keys and values`() {
        let line = LogLine(treated(socket(), .set))
        #expect(
            line?.text == "event=set pid=42 process=\"beremote\" fd=3 local=198.51.100.1:52576 "
                + "remote=192.0.2.1:5633 before=off after=600/60/50 method=pidfd")
        #expect(line?.severity == .info)
    }

    @Test func `a link-local end names its link`() throws {
        let end = Endpoint(address: try #require(IPAddress("fe80::1")), port: 5633)
        func line(_ interface: String) -> String? {
            let plain = socket()
            let row = SocketRow(
                family: .ipv6, local: end, remote: end, state: .established, timer: .none, uid: 0, inode: 7,
                interface: NetworkInterface(index: 3, name: UntrustedText(interface)))
            return LogLine(
                treated(DiscoveredSocket(process: plain.process, holders: plain.holders, row: row), .set))?.text
        }
        #expect(line("eth0")?.contains(" local=[fe80::1%eth0]:5633 remote=[fe80::1%eth0]:5633 ") == true)
        #expect(line("a\" pid=1\n")?.contains(#" local="[fe80::1%a\" pid=1\\n]:5633" "#) == true)
    }

    @Test func `a failure has its code, its message and the remedy`() {
        let line = LogLine(failed(socket(), denied))
        #expect(line?.text.hasPrefix("event=failed pid=42 ") == true)
        #expect(
            line?.text.hasSuffix(" code=EPERM message=\"no permission to reach into PID 42\" remedy=\"be root\"")
                == true)
    }

    @Test(arguments: [SocketAction.unchanged, .none, .wouldSet])
    func `without a change there is no line`(action: SocketAction) {
        #expect(LogLine(treated(socket(), action)) == nil)
    }

    @Test(arguments: [
        ("a\" pid=1 x=\"", #"process="a\" pid=1 x=\"""#), ("a\\", #"process="a\\""#), ("a\\\"b", #"process="a\\\"b""#),
        ("", #"process="""#), ("x\ny", #"process="x\ny""#), ("pid=1", #"process="pid=1""#),
        ("a\u{202e}b", #"process="a\u{202e}b""#),
    ])
    func `no name forges a key or ends its quotes`(name: String, shown: String) throws {
        let line = try #require(LogLine(treated(socket(name: name), .set)))
        #expect(line.text.contains(" \(shown) fd=3 "))
        #expect(!line.text.contains("\n"))
    }

    @Test func `a datagram has the format of the C library's syslog`() {
        let line = LogLine(failure: "no candidate")
        // 2026-11-05 in every time zone.
        let text = SystemLog.datagram(line, at: 1_793_880_000)
        #expect(
            text.wholeMatch(
                of: /<27>Nov  [56] \d\d:\d\d:\d\d sockalive\[\d+\]: event=failed message="no candidate"/) != nil)
    }
}

@Suite struct FailureThrottleTests {
    private func dueCount(_ throttle: inout FailureThrottle, _ results: [SocketResult], at now: Int) -> Int {
        throttle.due(results, now: now).compactMap(LogLine.init).count
    }

    @Test func `the same failure is due once and then hourly`() {
        var throttle = FailureThrottle()
        let result = [failed(socket(), denied)]
        let times = stride(from: 1000, through: 1000 + 2 * 3600, by: 300).filter {
            dueCount(&throttle, result, at: $0) > 0
        }
        #expect(times == [1000, 4600, 8200])
    }

    @Test func `another error, another socket and a new failure are due at once`() {
        var throttle = FailureThrottle()
        #expect(dueCount(&throttle, [failed(socket(), denied)], at: 10) == 1)
        #expect(dueCount(&throttle, [failed(socket(), .overwritten)], at: 20) == 1)
        #expect(dueCount(&throttle, [failed(socket(inode: 8), .overwritten)], at: 30) == 1)
        #expect(dueCount(&throttle, [treated(socket(), .unchanged)], at: 40) == 0)
        #expect(dueCount(&throttle, [failed(socket(), .overwritten)], at: 50) == 1)
    }

    @Test func `a run over other candidates forgets nothing, but entries expire`() {
        var throttle = FailureThrottle()
        #expect(dueCount(&throttle, [failed(socket(), denied)], at: 10) == 1)
        #expect(dueCount(&throttle, [], at: 300) == 0)
        #expect(dueCount(&throttle, [failed(socket(), denied)], at: 600) == 0)
        _ = throttle.due([], now: 10_000)
        #expect(throttle.entries.isEmpty)
    }

    @Test func `a time from another boot is ignored`() {
        var throttle = FailureThrottle("90000 42 99 7 EPERM\n".utf8)
        #expect(dueCount(&throttle, [failed(socket(), denied)], at: 10) == 1)
    }

    @Test func `a failure of a run from before the boot is reported again, and then hourly`() {
        var throttle = FailureThrottle("90000 0 0 0 EXIT69\n".utf8)
        let times = stride(from: 10, through: 7300, by: 300).filter {
            throttle.isDue(runFailure: "EXIT69", now: $0)
        }
        #expect(times == [10, 3610, 7210])
    }

    @Test(arguments: [(nil, true), (0, true), (3400, true), (3401, false), (6999, false), (7000, false), (7001, true)])
    func `a report is due after an hour, and if its time is in the future`(last: Int?, isDue: Bool) {
        #expect(FailureThrottle.isDue(lastReported: last, now: 7000) == isDue)
    }

    @Test func `at its capacity the throttle still works for its entries`() {
        var throttle = FailureThrottle()
        let many = (0..<UInt64(FailureThrottle.capacity)).map { failed(socket(inode: $0), denied) }
        _ = throttle.due(many, now: 5)
        let times = stride(from: 3605, through: 3605 + 2 * 3600, by: 300).filter {
            dueCount(&throttle, [many[7]], at: $0) > 0
        }
        #expect(times == [3605, 7205, 10805])
    }

    @Test func `it is the same after save and load`() {
        var throttle = FailureThrottle()
        _ = throttle.due([failed(socket(), denied), failed(socket(inode: 9), .overwritten)], now: 5)
        #expect(throttle.entries.count == 2)
        #expect(FailureThrottle(throttle.text.utf8) == throttle)
    }

    @Test(arguments: [
        "x", "1 2 3 4", "1 2 3 4 ", "1 2 3 4 E P", "-1 2 3 4 EPERM", "1 99999999999 3 4 EPERM", "1 2 3 4 E\u{1b}[",
        "\0\0\0", "1  2 3 4 E", "99999999999999999999999 1 1 1 E",
    ])
    func `a hostile line is ignored, and the others count`(line: String) {
        let throttle = FailureThrottle("\(line)\n5 42 99 7 EPERM\n".utf8)
        #expect(throttle == FailureThrottle("5 42 99 7 EPERM".utf8))
        #expect(throttle.entries.count == 1)
    }

    @Test func `it never exceeds its capacity`() {
        let text = (0..<40_000).map { "5 1 1 \($0) EPERM\n" }.joined()
        #expect(FailureThrottle(text.utf8).entries.count == FailureThrottle.capacity)
        var throttle = FailureThrottle()
        _ = throttle.due((0..<33_000).map { failed(socket(inode: $0), denied) }, now: 5)
        #expect(throttle.entries.count == FailureThrottle.capacity)
    }
}

@Suite struct AtomicFileTests {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("atomic-\(UUID().uuidString)")

    private func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder.path) }

    @Test func `a file is replaced as a whole, and no other file is left`() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appendingPathComponent("file").path
        try AtomicFile.write("one\n", to: file, mode: 0o644)
        try AtomicFile.write("two\n", to: file, mode: 0o644)
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "two\n")
        #expect(try names() == ["file"])
        let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
        #expect(mode == 0o644)
    }

    @Test func `only a regular file is replaced`() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let link = folder.appendingPathComponent("link").path
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: "/dev/null")
        // A pipe and not a device: if the guard failed, root would replace a real device.
        let pipe = folder.appendingPathComponent("pipe").path
        #expect(mkfifo(pipe, 0o600) == 0)
        let inner = folder.appendingPathComponent("folder")
        try FileManager.default.createDirectory(at: inner, withIntermediateDirectories: true)
        for path in [link, pipe, inner.path] {
            #expect(throws: (any Error).self) { try AtomicFile.write("x", to: path, mode: 0o644) }
        }
        #expect(try names().sorted() == ["folder", "link", "pipe"])
    }
}

import SystemPackage
import Testing

@testable import SockaliveCore

/// What a worker says, as its parent reads it.
@Suite struct RunEventTests {
    private static let processes = [77, 78].map { pid in
        ProcessIdentity(
            pid: pid, name: UntrustedText("beremote \(pid)"), executable: UntrustedText("/opt/\(pid)"), uid: 7,
            startTime: 8, networkNamespace: 9, place: nil, arguments: nil)
    }

    private static func socket(_ number: Int) -> DiscoveredSocket {
        let process = processes[number / 50 % 2]
        let end = Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: UInt16(number))
        let row = SocketRow(
            family: .ipv4, local: end, remote: end, state: .established, timer: .keepalive(seconds: 1.5), uid: 7,
            inode: UInt64(number), idleSeconds: number % 2 == 0 ? nil : 2.5, cookie: UInt64(number) << 40)
        let holders = (0...number % 3).map { SocketHolder(pid: process.pid, fd: Int32(number + $0)) }
        return DiscoveredSocket(
            process: process, holders: holders, row: row, sharesInode: number % 5 == 0, networkNamespace: 9)
    }

    /// Sends the events through the ring, and reads them as they come.
    ///
    /// - Parameter size: the reader gets so many bytes at a time.
    private static func sent(_ events: [RunEvent], by size: Int = .max) throws -> [RunEvent] {
        let page = try #require(WorkerPage())
        var writer = RunEventWriter(WorkerOutput(page: page, channel: -1))
        var reader = RunEventReader()
        var (bytes, received): ([UInt8], [RunEvent]) = ([], [])
        for event in events {
            writer.send(event)
            while page.unread > 0 {
                var part: [UInt8] = []
                page.read(into: &part)
                while !part.isEmpty {
                    bytes += part.prefix(size)
                    part.removeFirst(min(size, part.count))
                    try reader.read(&bytes) { received.append($0) }
                }
            }
        }
        withExtendedLifetime(page) {}
        #expect(bytes.isEmpty)
        return received
    }

    @Test(arguments: [7, .max])
    func `candidates arrive as they were found`(size: Int) throws {
        let requests = [KeepaliveRequest(), KeepaliveRequest(idle: 5, userTimeout: 9000)]
        let candidates = (1...200).map { number in
            AssignedSocket(
                socket: Self.socket(number), request: requests[number / 30 % 2], rule: number / 30 % 2)
        }
        var received: [AssignedSocket] = []
        var total: Int?
        for event in try Self.sent([.candidates(candidates, total: candidates.count)], by: size) {
            guard case .candidates(let some, let left) = event else { continue }
            total = total ?? left
            received += some
        }
        #expect(total == 200 && received.map(\.socket.row) == candidates.map(\.socket.row))
        #expect(received.map(\.socket.holders) == candidates.map(\.socket.holders))
        #expect(received.map(\.socket.sharesInode) == candidates.map(\.socket.sharesInode))
        #expect(received.map(\.request) == candidates.map(\.request) && received.map(\.rule) == candidates.map(\.rule))
        #expect(received.map(\.socket.process.name) == candidates.map(\.socket.process.name))
        #expect(received.allSatisfy { $0.socket.process.uid == 7 && $0.socket.process.startTime == 8 })
    }

    @Test func `results arrive with and without a failure`() throws {
        let socket = Self.socket(3)
        let before = KeepaliveSettings(enabled: false, idle: 7200, interval: 75, count: 9)
        let after = KeepaliveSettings(enabled: true, idle: 600, interval: 60, count: 50, userTimeout: 1)
        let outcome = KeepaliveOperation.Outcome(
            before: before, after: after, planned: after, idleSeconds: 12.5, action: .set)
        var done = SocketResult(socket: socket, outcome: outcome, method: .pidfd, rights: .owner, pausedMicroseconds: 4)
        done.probe = ProbeAnswer(answered: true, milliseconds: 0.5)
        done.restartedWait = RestartedWait(call: .epollWait, milliseconds: 600_000)
        var failed = done
        failed.failure = SocketFailure(.permission, .permissionDenied, "ends with ü", remedy: "wait")
        let results = [done, failed, SocketResult(socket: socket, failure: .overwritten, isFailedAction: true), done]

        var received: [Int: SocketResult] = [:]
        let events = results.enumerated().map { RunEvent.result(index: $0 * 1000, ResultRecord($1)) }
        for event in try Self.sent(events) {
            guard case .result(let index, let record) = event else { continue }
            var result = SocketResult(
                AssignedSocket(socket: socket, request: KeepaliveRequest()), .interfaceUnknown, isFailedAction: false)
            result.take(record)
            received[index / 1000] = result
        }
        #expect(received.count == results.count)
        for (index, result) in results.enumerated() {
            #expect(received[index].map { "\($0)" } == "\(result)")
        }
    }

    /// They go round in the ring several times.
    @Test func `a hundred thousand results arrive in their order`() throws {
        let result = SocketResult(socket: Self.socket(1), failure: .overwritten, isFailedAction: true)
        var done = result
        done.failure = nil
        let records = [ResultRecord(result), ResultRecord(done), ResultRecord(done)]
        var indices: [Int] = []
        for event in try Self.sent((0..<100_000).map { .result(index: $0, records[$0 % 3]) }) {
            guard case .result(let index, let record) = event else { continue }
            var read = result
            read.take(record)
            if (read.failure == nil) == (index % 3 != 0) { indices.append(index) }
        }
        #expect(indices.elementsEqual(0..<100_000))
    }

    @Test func `what is no event is refused`() throws {
        var reader = RunEventReader()
        for bytes: [UInt8] in [[1, 0, 0, 0, 99], [1, 0, 0, 0, 2], [0, 0, 0, 0], [255, 255, 255, 255, 0]] {
            var bytes = bytes
            #expect(throws: WireReader.Malformed.self) { try reader.read(&bytes) { _ in } }
        }
        // Not whole yet.
        var part: [UInt8] = [9, 0, 0, 0, 2]
        try reader.read(&part) { _ in Issue.record("an event") }
        #expect(part.count == 5)
    }
}

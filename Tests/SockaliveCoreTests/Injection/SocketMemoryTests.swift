import Glibc
import Testing

@testable import SockaliveCore

/// The keepalive timer of one connection as the kernel keeps it (net/ipv4/tcp_timer.c, tcp_keepalive_timer), with a clock
/// that a test moves. Milliseconds.
private struct Connection {
    var now = 10_000_000
    private(set) var enabled = false
    private(set) var idle = 7_200_000
    var interval = 75_000
    /// The last data or ACK.
    private(set) var active: Int
    private var firesAt: Int?
    /// The peer answers probes.
    var isAnswered = true
    /// A timer that is far away fires late: up to an eighth (kernel/time/timer.c).
    var lateness = 0

    init() {
        active = now
    }

    mutating func set(idle seconds: Int) {
        idle = seconds * 1000
        if enabled { firesAt = now + max(0, idle - (now - active)) }
    }

    mutating func set(enabled: Bool) {
        if enabled && !self.enabled { firesAt = now + idle }
        if !enabled { firesAt = nil }
        self.enabled = enabled
    }

    mutating func exchangeData() { active = now }

    mutating func advance(by milliseconds: Int) {
        let end = now + milliseconds
        while let due = firesAt, due + lateness <= end {
            now = max(now, due + lateness)
            if now - active >= idle {
                if isAnswered { active = now }
                firesAt = now + interval
            } else {
                firesAt = active + idle
            }
        }
        now = end
    }

    func row(hidesIdle: Bool = false) -> SocketRow {
        let timer = firesAt.map { SocketRow.Timer.keepalive(seconds: Double(max(0, $0 - now)) / 1000) }
        return sockaliveRow(timer ?? .none, idle: hidesIdle ? nil : Double(now - active) / 1000)
    }

    var settings: KeepaliveSettings {
        KeepaliveSettings(
            enabled: enabled, idle: Int32(idle / 1000), interval: Int32(interval / 1000), count: 50)
    }

    mutating func inject() {
        set(enabled: true)
        interval = 60_000
        set(idle: 600)
    }
}

private func sockaliveRow(
    _ timer: SocketRow.Timer, idle: Double?, inode: UInt64 = 7, cookie: UInt64? = 11,
    state: SocketRow.State = .established
) -> SocketRow {
    SocketRow(
        family: .ipv4, local: Endpoint(address: IPAddress("198.51.100.1")!, port: 52576),
        remote: Endpoint(address: IPAddress("192.0.2.1")!, port: 5633), state: state, timer: timer, uid: 0,
        inode: inode, idleSeconds: idle, cookie: cookie)
}

private func socket(_ row: SocketRow) -> DiscoveredSocket {
    DiscoveredSocket(
        process: ProcessIdentity(
            pid: 42, name: UntrustedText("beremote"), executable: nil, uid: 0, startTime: 99, networkNamespace: 1),
        holders: [SocketHolder(pid: 42, fd: 3)], row: row, networkNamespace: 4_026_531_840)
}

extension SocketMemory {
    fileprivate static let usual = Defaults(networkNamespace: 4_026_531_840, idle: 7200, interval: 75, count: 9)

    /// Every value is the socket's own: no sysctl has it.
    fileprivate func updated(_ results: [SocketResult], start: Int, now: Int) -> SocketMemory {
        let others = Defaults(networkNamespace: 4_026_531_840, idle: 32_001, interval: 32_002, count: 126)
        return updated(results, start: start, now: now, defaults: others)
    }
}

private let hour = Seconds(3600)
private let injected = KeepaliveSettings(enabled: true, idle: 600, interval: 60, count: 50)

private func treated(_ socket: DiscoveredSocket, _ after: KeepaliveSettings, method: Method = .ptrace) -> SocketResult {
    SocketResult(
        socket: socket,
        outcome: .init(before: after, after: after, planned: after, idleSeconds: nil, action: .set), method: method,
        rights: .kept, pausedMicroseconds: 64)
}

/// What a run every five minutes under cron does, by the clock of a connection.
private struct Runs {
    var memory = SocketMemory()
    private(set) var stops = 0
    let timeout: Seconds

    init(_ timeout: Seconds = hour) {
        self.timeout = timeout
    }

    /// - Returns: the verdict of the run.
    @discardableResult
    mutating func run(_ connection: inout Connection, hidesIdle: Bool = false) -> SocketResult {
        let row = connection.row(hidesIdle: hidesIdle)
        let now = connection.now
        let untouched = UntouchedSockets(
            memory: memory, mode: .inject, method: .ptrace, choice: .auto, now: { now })
        let request = KeepaliveRequest(firewallTimeout: timeout)
        var result: SocketResult
        if let known = untouched.result(for: socket(row), request) {
            result = known
        } else {
            stops += 1
            let before = connection.settings
            if KeepalivePlan(current: before, request: request) != .leave { connection.inject() }
            result = treated(
                socket(sockaliveRow(row.timer, idle: Double(now - connection.active) / 1000)), connection.settings)
        }
        result.request = request
        memory = memory.updated([result], start: now, now: now)
        return result
    }
}

@Suite struct SocketMemoryTests {
    // MARK: a day

    private static let fiveMinutes = 300_000

    @Test(arguments: [(true, 0), (false, 0), (true, 32_000)])
    func `a day of runs every five minutes stops the target once`(hasTraffic: Bool, lateness: Int) {
        var connection = Connection()
        connection.lateness = lateness
        var random = SeededGenerator(seed: 16)
        var runs = Runs()
        runs.run(&connection)
        for _ in 0..<287 {
            var rest = Self.fiveMinutes
            while hasTraffic && random.below(3) > 0 {
                let step = random.below(rest)
                connection.advance(by: step)
                connection.exchangeData()
                rest -= step
            }
            connection.advance(by: rest)
            let result = runs.run(&connection)
            #expect(result.settingsSource == .memory && result.action == .unchanged && result.verdict == .protected)
        }
        #expect(runs.stops == 1)
        // And once a day it is asked again.
        for _ in 0..<3 {
            connection.advance(by: Self.fiveMinutes)
            runs.run(&connection)
        }
        #expect(runs.stops == 2)
    }

    @Test func `without the idle time it is asked again each hour`() {
        var connection = Connection()
        var runs = Runs()
        for _ in 0..<288 {
            runs.run(&connection, hidesIdle: true)
            connection.advance(by: Self.fiveMinutes)
        }
        #expect((24...36).contains(runs.stops))
    }

    // MARK: what the owner changes

    @Test(arguments: [0, 1000, 250_000, 299_000]) func `what the owner switches off is switched on by the next run`(
        after: Int
    ) {
        var connection = Connection()
        var runs = Runs()
        runs.run(&connection)
        connection.advance(by: after)
        connection.set(enabled: false)
        connection.advance(by: Self.fiveMinutes - after)
        #expect(runs.run(&connection).settingsSource == .socket)
        #expect(connection.settings == injected)
    }

    @Test(arguments: [0, 1000, 250_000, 299_000]) func `two hours are made ten minutes by the next run`(after: Int) {
        for hasTraffic in [false, true] {
            for isFresh in [false, true] {
                var connection = Connection()
                var runs = Runs()
                runs.run(&connection)
                connection.advance(by: after)
                if isFresh { connection.set(enabled: false) }
                connection.set(idle: 7200)
                if isFresh { connection.set(enabled: true) }
                if hasTraffic { connection.exchangeData() }
                connection.advance(by: Self.fiveMinutes - after)
                if hasTraffic { connection.exchangeData() }
                #expect(runs.run(&connection).settingsSource == .socket)
                #expect(connection.settings == injected)
            }
        }
    }

    /// Whatever the owner does to the idle time, whenever, and however far the runs are apart.
    @Test(arguments: [600, 1800, 3600, 14_400]) func `no memory says protected of a socket that is not`(timeout: Int) {
        var random = SeededGenerator(seed: UInt64(timeout))
        var (remembered, stops) = (0, 0)
        for _ in 0..<1000 {
            var connection = Connection()
            var runs = Runs(Seconds(timeout))
            for _ in 0..<20 {
                connection.isAnswered = random.below(8) > 0
                connection.lateness = random.below(3) == 0 ? random.below(60_000) : 0
                let result = runs.run(&connection)
                if result.settingsSource == .memory {
                    remembered += 1
                    let real = connection.settings.verdict(against: Seconds(timeout))
                    #expect(result.verdict != .protected || real == .protected)
                }
                for _ in 0..<random.below(4) {
                    connection.advance(by: random.below([3000, 300_000, 4_000_000, 30_000_000][random.below(4)]))
                    switch random.below(12) {
                    case 0: connection.set(enabled: false)
                    case 1: connection.set(enabled: true)
                    case 2: connection.set(idle: [1, 600, 3500, 7200, 20_000][random.below(5)])
                    case 3...6: connection.exchangeData()
                    default: break
                    }
                }
            }
            stops += runs.stops
        }
        #expect(remembered > 250 && stops > 1000)
    }

    // MARK: which socket, and what is not remembered

    private func memory(_ row: SocketRow, now: Int = 10_000_000) -> SocketMemory {
        SocketMemory().updated([treated(socket(row), injected)], start: now, now: now)
    }

    private func result(_ row: SocketRow, _ memory: SocketMemory, now: Int = 10_000_000, _ request: KeepaliveRequest)
        -> SocketResult?
    {
        UntouchedSockets(memory: memory, mode: .inject, method: .ptrace, choice: .auto, now: { now })
            .result(for: socket(row), request)
    }

    private let armed = sockaliveRow(.keepalive(seconds: 500), idle: 100)

    @Test func `another cookie or inode is another socket`() {
        let memory = memory(armed)
        let request = KeepaliveRequest()
        #expect(result(armed, memory, request) != nil)
        // A source that does not tell it may have been forced by the owner.
        #expect(result(sockaliveRow(armed.timer, idle: 100, cookie: nil), memory, request) == nil)
        #expect(result(sockaliveRow(armed.timer, idle: 100, cookie: 12), memory, request) == nil)
        #expect(result(sockaliveRow(armed.timer, idle: 100, inode: 8), memory, request) == nil)
    }

    @Test func `a rule that asks for other values reaches the socket`() {
        let memory = memory(armed)
        #expect(result(armed, memory, KeepaliveRequest(idle: 300)) == nil)
        #expect(result(armed, memory, KeepaliveRequest(firewallTimeout: Seconds(600))) == nil)
        #expect(result(armed, memory, KeepaliveRequest(userTimeout: 1000)) == nil)
        #expect(result(armed, memory, KeepaliveRequest(enabled: false)) == nil)
        #expect(result(armed, memory, KeepaliveRequest(idle: 600, interval: 60, count: 50)) != nil)
    }

    @Test func `a clock that went back, a hidden timer and a listener are no memory`() {
        let memory = memory(armed)
        let request = KeepaliveRequest()
        #expect(result(armed, memory, now: 9_999_999, request) == nil)
        #expect(result(armed, memory, now: 10_000_001 + SocketMemory.maxAge, request) == nil)
        for timer in [SocketRow.Timer.retransmission(seconds: 0.2), .windowProbe(seconds: 3), .other] {
            #expect(result(sockaliveRow(timer, idle: 0), memory, request) == nil)
        }
        let listener = sockaliveRow(.none, idle: nil, state: .listen)
        #expect(self.memory(listener).isEmpty)
    }

    @Test func `before a remembered socket is touched the file is gone`() throws {
        let path = "/tmp/sockalive-memory-test.\(getpid()).state"
        defer { unlink(path) }
        let memory = memory(armed)
        try memory.save(to: path)
        #expect(SocketMemory(file: path) == memory)
        let untouched = UntouchedSockets(
            memory: memory, memoryFile: path, mode: .inject, method: .ptrace, choice: .auto, now: { 10_000_000 })
        untouched.willReach(socket(sockaliveRow(armed.timer, idle: 100, inode: 8)))
        #expect(access(path, F_OK) == 0)
        untouched.willReach(socket(armed))
        #expect(access(path, F_OK) != 0)
        // A link or a folder is not this program's.
        #expect(symlink("/dev/null", path) == 0)
        SocketMemory.forget(path)
        var status = stat()
        #expect(lstat(path, &status) == 0)
    }

    @Test func `by pidfd nothing is remembered, and what was is forgotten`() {
        let known = memory(armed)
        let again = known.updated(
            [treated(socket(armed), injected, method: .pidfd)], start: 10_000_000, now: 10_000_000)
        #expect(!known.isEmpty && again.isEmpty)
    }

    @Test func `values that follow a sysctl are not remembered`() {
        func isRemembered(_ defaults: SocketMemory.Defaults?, before: KeepaliveSettings) -> Bool {
            let outcome = KeepaliveOperation.Outcome(
                before: before, after: injected, planned: injected, idleSeconds: nil, action: .set)
            let result = SocketResult(
                socket: socket(armed), outcome: outcome, method: .ptrace, rights: .kept, pausedMicroseconds: 64)
            return !SocketMemory().updated([result], start: 10_000_000, now: 10_000_000, defaults: defaults).isEmpty
        }
        let untold = KeepaliveSettings(enabled: false, idle: 7200, interval: 75, count: 9)
        // This run has set all three.
        #expect(isRemembered(nil, before: untold))
        // They were so before: nobody knows whether they are the socket's own.
        #expect(!isRemembered(nil, before: injected))
        #expect(isRemembered(SocketMemory.usual, before: injected))
        for (idle, interval, count) in [(600, 75, 9), (7200, 60, 9), (7200, 75, 50)] as [(Int32, Int32, Int32)] {
            let same = SocketMemory.Defaults(
                networkNamespace: 4_026_531_840, idle: idle, interval: interval, count: count)
            #expect(!isRemembered(same, before: injected))
        }
        let other = SocketMemory.Defaults(networkNamespace: 1, idle: 7200, interval: 75, count: 9)
        #expect(!isRemembered(other, before: injected))
    }

    @Test func `sockets that are gone make room for others`() {
        func results(_ first: UInt64, _ count: Int) -> [SocketResult] {
            (first..<first + UInt64(count)).map {
                treated(socket(sockaliveRow(armed.timer, idle: 1, inode: $0)), injected)
            }
        }
        let full = SocketMemory().updated(results(1, SocketMemory.capacity), start: 5_000_000, now: 5_000_000)
        let next = full.updated(results(100_000, 10), start: 5_300_000, now: 5_300_000)
        #expect(full.entries.count == SocketMemory.capacity && next.entries.count == 10)
    }

    @Test func `a file that cannot be removed is not believed`() throws {
        let folder = "/tmp/sockalive-memory-test.\(getpid())"
        #expect(mkdir(folder, 0o700) == 0)
        defer { rmdir(folder) }
        let path = folder + "/state"
        defer { unlink(path) }
        let memory = memory(armed)
        try memory.save(to: path)
        #expect(SocketMemory(file: path) == memory)
        guard Immutable.set(path, true) else { return }
        defer { Immutable.set(path, false) }
        #expect(SocketMemory(file: path).isEmpty)
    }

    @Test func `what a killed probe left is not remembered`() {
        let left = KeepaliveSettings(enabled: true, idle: 1, interval: 60, count: KeepaliveSettings.probeMarker)
        #expect(SocketMemory().updated([treated(socket(armed), left)], start: 0, now: 0).isEmpty)
    }

    @Test func `it holds so many sockets and no more`() {
        let results = (0..<UInt64(SocketMemory.capacity + 100)).map {
            treated(socket(sockaliveRow(armed.timer, idle: 1, inode: $0)), injected)
        }
        let memory = SocketMemory().updated(results, start: 5_000_000, now: 5_000_000)
        #expect(memory.entries.count == SocketMemory.capacity)
        let text = memory.text(boot: "boot")
        #expect(SocketMemory(Array(text.utf8), boot: "boot") == memory)
    }
}

/// A state file may be cut, mixed up, or written by anybody.
@Suite struct SocketMemoryFuzzTests {
    private static let boot = "3d5e7a52-0b1c-4d6e-8f90-123456789abc"

    private static func text(_ settings: [KeepaliveSettings], boot: String = boot) -> [UInt8] {
        var memory = SocketMemory()
        for (number, settings) in settings.enumerated() {
            let row = sockaliveRow(.keepalive(seconds: 500), idle: 100, inode: UInt64(number + 1))
            memory = memory.updated([treated(socket(row), settings)], start: 10_000_000, now: 10_000_000)
        }
        return Array(memory.text(boot: boot).utf8)
    }

    private static let slow = KeepaliveSettings(enabled: true, idle: 600, interval: 3000, count: 9)

    /// Sockets that are not protected, whatever the file says: the first by its interval, which only the file tells.
    private static func claims(_ memory: SocketMemory) -> [SocketResult] {
        let rows = [
            sockaliveRow(.keepalive(seconds: 500), idle: 100, inode: 1), sockaliveRow(.none, idle: 100, inode: 2),
            sockaliveRow(.keepalive(seconds: 7100), idle: 100, inode: 3),
            sockaliveRow(.keepalive(seconds: 4000), idle: 0, inode: 1),
            sockaliveRow(.keepalive(seconds: 3500), idle: 300, inode: 2),
            sockaliveRow(.retransmission(seconds: 1), idle: 0, inode: 3),
        ]
        return [KeepaliveRun.Mode.list, .inject].flatMap { mode in
            let untouched = UntouchedSockets(
                memory: memory, mode: mode, method: .ptrace, choice: .auto, now: { 10_060_000 })
            return rows.compactMap { untouched.result(for: socket($0), KeepaliveRequest()) }
        }
    }

    @Test func `of a million broken files none says protected of a socket that is not`() {
        let seeds = [
            Self.text([Self.slow, injected, injected]), Self.text([Self.slow]),
            Self.text([injected, injected, injected], boot: "another-boot"),
        ]
        var mutator = Mutator(random: SeededGenerator(seed: 1_016), seeds: seeds)
        var accepted = 0
        for _ in 0..<1_000_000 {
            let bytes = mutator.next()
            guard let memory = SocketMemory(bytes, boot: Self.boot) else { continue }
            accepted += 1
            if Self.claims(memory).contains(where: { $0.verdict == .protected }) {
                Issue.record("\(String(decoding: bytes, as: UTF8.self))")
                return
            }
        }
        // Some changes change nothing.
        #expect(accepted < 100_000)
    }

    /// Somebody who makes the checksum, too: only the interval is believed, and the timer bounds the rest.
    @Test func `of a hundred thousand forged files none crashes, and the timer is believed before them`() {
        let seeds = [Self.text([injected, injected, injected])]
        var mutator = Mutator(random: SeededGenerator(seed: 2_016), seeds: seeds)
        var accepted = 0
        for _ in 0..<100_000 {
            var text = String(decoding: mutator.next(), as: UTF8.self).split(separator: "\n").dropLast()
            if text.isEmpty { continue }
            text[0] = Substring("sockalive state 1 \(Self.boot)")
            let body = text.joined(separator: "\n") + "\n"
            let sum = String(SocketMemory.checksum(body.utf8), radix: 16)
            guard let memory = SocketMemory(Array("\(body)end \(text.count - 1) \(sum)\n".utf8), boot: Self.boot) else {
                continue
            }
            accepted += 1
            for claim in Self.claims(memory) where claim.socket.row.timer != .keepalive(seconds: 500) {
                #expect(claim.verdict != .protected)
            }
        }
        #expect(accepted > 10_000)
    }

    @Test func `a file that is cut anywhere says nothing`() {
        let whole = Self.text([injected, injected])
        for length in whole.indices { #expect(SocketMemory(Array(whole[..<length]), boot: Self.boot) == nil) }
        #expect(SocketMemory(whole, boot: Self.boot)?.entries.count == 2)
        #expect(SocketMemory(whole, boot: "another-boot") == nil)
    }
}

/// chattr(1), `i`: nobody may write, remove or rename the file. Not every file system has it.
private enum Immutable {
    @discardableResult
    static func set(_ path: String, _ isImmutable: Bool) -> Bool {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        // FS_IOC_SETFLAGS, FS_IMMUTABLE_FL (linux/fs.h).
        var flags: Int32 = isImmutable ? 0x10 : 0
        return ioctl(file, 0x4008_6602, &flags) == 0
    }
}

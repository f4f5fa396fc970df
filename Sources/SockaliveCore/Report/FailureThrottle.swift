import Glibc
import SystemPackage

/// Limits repeated failures: the same failure is reported at once and then hourly.
///
/// Times are seconds since boot, because nobody can set that clock. A time in the future is from another boot.
package struct FailureThrottle: Equatable, Sendable {
    /// A unique key for a socket of a process. A PID and an inode may be reused, but not with the same start time.
    struct Candidate: Hashable, Sendable {
        let pid: Int32
        let startTime: UInt64
        let inode: UInt64

        init(pid: Int32, startTime: UInt64, inode: UInt64) {
            self.pid = pid
            self.startTime = startTime
            self.inode = inode
        }

        init(_ process: ProcessFailure) {
            self.init(pid: process.pid, startTime: 0, inode: 0)
        }

        init(_ socket: DiscoveredSocket) {
            self.init(pid: socket.process.pid, startTime: socket.process.startTime, inode: socket.inode)
        }
    }

    struct Entry: Equatable, Sendable {
        let code: String
        let time: Int
    }

    /// The run itself, for a failure before the first socket.
    private static let run = Candidate(pid: 0, startTime: 0, inode: 0)

    private(set) var entries: [Candidate: Entry] = [:]

    static let repeatAfter = 3600
    /// A candidate without a failure for this time is removed.
    static let forgetAfter = 2 * repeatAfter
    static let capacity = 32_768

    package init() {}

    /// The results to report now: every change, and every failure that is new or was last reported an hour ago.
    package mutating func due(_ results: [SocketResult], now: Int = Self.now) -> [SocketResult] {
        entries = entries.filter { (0..<Self.forgetAfter).contains(now - $0.value.time) }
        entries[Self.run] = nil
        return results.filter { isDue($0, now) }
    }

    private mutating func isDue(_ result: SocketResult, _ now: Int) -> Bool {
        let candidate = Candidate(result.socket)
        guard let code = result.failure?.code ?? (result.isSilent ? "SILENT" : nil) else {
            entries[candidate] = nil
            return true
        }
        return isDue(code, of: candidate, now)
    }

    /// The processes that are worth a line now.
    package mutating func due(processes failures: [ProcessFailure], now: Int = Self.now) -> [ProcessFailure] {
        failures.filter { isDue($0.failure.code, of: Candidate($0), now) }
    }

    /// Whether a whole run's failure is worth a line now.
    package mutating func isDue(runFailure code: String, now: Int = Self.now) -> Bool {
        isDue(code, of: Self.run, now)
    }

    private mutating func isDue(_ code: String, of candidate: Candidate, _ now: Int) -> Bool {
        let last = entries[candidate].flatMap { $0.code == code ? $0.time : nil }
        guard Self.isDue(lastReported: last, now: now) else { return false }
        if entries.count < Self.capacity || entries[candidate] != nil {
            entries[candidate] = Entry(code: code, time: now)
        }
        return true
    }

    /// True for the first time, and then hourly. A time in the future says nothing about this boot.
    package static func isDue(lastReported last: Int?, now: Int) -> Bool {
        last.map { !(0..<repeatAfter).contains(now - $0) } ?? true
    }

    /// The result could not be logged, so it stays due.
    package mutating func forget(_ result: SocketResult) {
        entries[Candidate(result.socket)] = nil
    }

    package mutating func forget(_ process: ProcessFailure) {
        entries[Candidate(process)] = nil
    }

    package mutating func forgetRun() {
        entries[Self.run] = nil
    }

    package static var now: Int { bootSeconds }
}

/// The file format: one failure a line, `time pid start inode code`. Other lines are ignored.
extension FailureThrottle {
    package init(_ text: some Sequence<UInt8>) {
        for line in Array(text).split(separator: UInt8(ascii: "\n")).prefix(Self.capacity) {
            let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            guard fields.count == 5, let time: Int = fields[0].decimal(), let pid: Int32 = fields[1].decimal(),
                let startTime: UInt64 = fields[2].decimal(), let inode: UInt64 = fields[3].decimal(),
                (1...32).contains(fields[4].count), fields[4].allSatisfy({ $0 > 0x20 && $0 < 0x7f })
            else { continue }
            entries[Candidate(pid: pid, startTime: startTime, inode: inode)] = Entry(
                code: String(decoding: fields[4], as: UTF8.self), time: time)
        }
    }

    package var text: String {
        entries.map { "\($1.time) \($0.pid) \($0.startTime) \($0.inode) \($1.code)\n" }.sorted().joined()
    }
}

extension FailureThrottle {
    private static let maxFileSize = 1 << 22

    /// Reads the file of the last run; empty if there is none, or if the file belongs to another user.
    package init(file path: String) {
        self.init()
        if let bytes = StateFile.read(path, limit: Self.maxFileSize) { self.init(bytes) }
    }

    package func save(to path: String) throws(Errno) {
        try AtomicFile.write(text, to: path, mode: 0o600)
    }
}

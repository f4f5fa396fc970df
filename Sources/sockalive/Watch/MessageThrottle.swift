import SockaliveCore

/// Limits repeated messages: one is reported when it has lasted for a while, and then hourly.
struct MessageThrottle {
    private struct Entry {
        let start: Int
        var reported: Int?
    }

    /// Seconds that a message has to last before it is reported.
    private let delay: Int
    private var entries: [String: Entry] = [:]

    init(delay: Int = 0) {
        self.delay = delay
    }

    /// Those of a round's lines that are to be told; what is not among them is over.
    mutating func due(_ lines: [String], now: Int = FailureThrottle.now) -> [String] {
        entries = entries.filter { lines.contains($0.key) }
        return lines.filter { isDue($0, now) }
    }

    private mutating func isDue(_ line: String, _ now: Int) -> Bool {
        var entry = entries[line] ?? Entry(start: now)
        defer { entries[line] = entry }
        guard now - entry.start >= delay else { return false }
        if let reported = entry.reported, now - reported < FailureThrottle.repeatAfter { return false }
        entry.reported = now
        return true
    }
}

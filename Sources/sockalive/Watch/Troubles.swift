import SockaliveCore

/// What goes wrong beside the sockets, told when it has lasted for a while and then hourly.
struct Troubles {
    private struct Course {
        let start: Int
        var told: Int?
    }

    /// So many seconds of it are worth no line.
    private let patience: Int
    private var courses: [String: Course] = [:]

    init(patience: Int = 0) {
        self.patience = patience
    }

    /// Those of a round's lines that are to be told; what is not among them is over.
    mutating func due(_ lines: [String], now: Int = FailureThrottle.now) -> [String] {
        courses = courses.filter { lines.contains($0.key) }
        return lines.filter { isDue($0, now) }
    }

    private mutating func isDue(_ line: String, _ now: Int) -> Bool {
        var course = courses[line] ?? Course(start: now)
        defer { courses[line] = course }
        guard now - course.start >= patience else { return false }
        if let told = course.told, now - told < FailureThrottle.repeatAfter { return false }
        course.told = now
        return true
    }
}

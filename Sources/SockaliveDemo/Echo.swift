import Glibc

/// What became of one message that the agent sent: the agent tells it to the stage as one line.
enum Echo: Equatable {
    case answered(milliseconds: Double)
    case silent
    case broken(String)

    var isAnswered: Bool { milliseconds != nil }

    /// How long the answer took.
    var milliseconds: Double? {
        if case .answered(let milliseconds) = self { milliseconds } else { nil }
    }

    /// As the agent writes it.
    var word: String {
        switch self {
        case .answered(let milliseconds): "answered \(milliseconds)"
        case .silent: "silent"
        case .broken(let reason): "broken \(reason)"
        }
    }

    init?(word: String) {
        let parts = word.split(separator: " ", maxSplits: 1)
        switch (parts.first, parts.count) {
        case ("answered", 2):
            guard let milliseconds = Double(parts[1]) else { return nil }
            self = .answered(milliseconds: milliseconds)
        case ("broken", 2): self = .broken(String(parts[1]))
        case ("silent", 1): self = .silent
        default: return nil
        }
    }
}

/// Text for a terminal: in color (ECMA-48), or plain.
package struct TextStyle: Sendable {
    package let isColored: Bool

    package enum Color: String {
        case bold = "1"
        case dim = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
    }

    package init(isColored: Bool) {
        self.isColored = isColored
    }

    package func paint(_ text: String, _ color: Color) -> String {
        isColored ? "\u{1B}[\(color.rawValue)m\(text)\u{1B}[0m" : text
    }

    /// Erases the rest of the line.
    package static let eraseToEnd = "\u{1B}[K"

    /// Moves the cursor up by some lines, in the same column.
    package static func cursorUp(_ lines: Int) -> String {
        "\u{1B}[\(lines)A"
    }
}

/// A bar of fixed width for a share of a whole.
package enum Gauge {
    package static let width = 10

    /// The bars with 0 to `width` filled cells.
    package static let bars = (0...width).map { filled in
        String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
    }
}

extension String {
    /// The text with spaces appended up to `width` characters.
    package func padded(_ width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
}

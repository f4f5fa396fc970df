import Glibc

/// Standard output as it is: a terminal with its width and colors, or something that takes plain lines.
struct Screen {
    let isTerminal: Bool
    let usesColor: Bool
    let columns: Int

    enum Color: String {
        case red = "31"
        case green = "32"
        case yellow = "33"
        case dim = "2"
        case bold = "1"
    }

    func paint(_ text: String, _ color: Color) -> String {
        usesColor ? "\u{1B}[\(color.rawValue)m\(text)\u{1B}[0m" : text
    }

    func write(_ text: String) throws {
        guard StandardStreams.output(text) else {
            throw DemoFailure("standard output is closed or full: the rest of the story is lost")
        }
    }
}

extension Screen {
    /// What standard output is right now.
    init() {
        isTerminal = StandardStreams.outputIsTerminal && Self.environment("TERM") != "dumb"
        usesColor = isTerminal && Self.environment("NO_COLOR") == nil
        var size = winsize()
        let known = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        columns = known ? Int(size.ws_col) : 80
    }

    private static func environment(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }
    }
}

extension String {
    /// Filled with blanks to `width` characters.
    func padded(_ width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
}

extension Double {
    /// With one digit behind the point.
    var tenths: String {
        let tenths = Int((self * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}

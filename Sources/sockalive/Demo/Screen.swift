import Glibc

/// Standard output as it is: a terminal with its width and colours, or something that takes plain lines.
struct Screen {
    let isTerminal: Bool
    let usesColour: Bool
    let columns: Int

    enum Colour: String {
        case red = "31"
        case green = "32"
        case yellow = "33"
        case dim = "2"
        case bold = "1"
    }

    init() {
        isTerminal = StandardStreams.outputIsTerminal && Self.environment("TERM") != "dumb"
        usesColour = isTerminal && Self.environment("NO_COLOR") == nil
        var size = winsize()
        let known = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        columns = known ? Int(size.ws_col) : 80
    }

    func paint(_ text: String, _ colour: Colour) -> String {
        usesColour ? "\u{1B}[\(colour.rawValue)m\(text)\u{1B}[0m" : text
    }

    func write(_ text: String) throws {
        guard StandardStreams.output(text) else {
            throw DemoFailure("standard output is closed or full: the rest of the story is lost")
        }
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

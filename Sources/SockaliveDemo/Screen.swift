import Glibc
import SockaliveCore

/// Standard output as it is: a terminal with its width and colors, or something that takes plain lines.
package struct Screen {
    let isTerminal: Bool
    let columns: Int
    private let style: TextStyle
    private let output: (String) -> Bool

    init(isTerminal: Bool, usesColor: Bool, columns: Int, output: @escaping (String) -> Bool = { _ in true }) {
        self.isTerminal = isTerminal
        self.columns = columns
        self.output = output
        style = TextStyle(isColored: usesColor)
    }

    /// What standard output is right now.
    ///
    /// - Parameter output: writes to it; false if it is closed or full.
    package init(style: TextStyle, output: @escaping (String) -> Bool) {
        let isTerminal = isatty(STDOUT_FILENO) == 1 && getenv("TERM").map { String(cString: $0) } != "dumb"
        var size = winsize()
        let isKnown = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        self.init(
            isTerminal: isTerminal, usesColor: isTerminal && style.isColored,
            columns: isKnown ? Int(size.ws_col) : 80, output: output)
    }

    func paint(_ text: String, _ color: TextStyle.Color) -> String {
        style.paint(text, color)
    }

    package func write(_ text: String) throws {
        guard output(text) else {
            throw DemoFailure("standard output is closed or full: the rest of the story is lost")
        }
    }
}

extension Double {
    /// With one digit behind the point.
    var tenths: String {
        let tenths = Int((self * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}

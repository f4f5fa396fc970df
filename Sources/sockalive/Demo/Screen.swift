import Glibc
import SockaliveCore

/// Standard output as it is: a terminal with its width and colors, or something that takes plain lines.
struct Screen {
    let isTerminal: Bool
    let usesColor: Bool
    let columns: Int

    func paint(_ text: String, _ color: TextStyle.Color) -> String {
        TextStyle(isColored: usesColor).paint(text, color)
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
        isTerminal = StandardStreams.outputIsTerminal && getenv("TERM").map { String(cString: $0) } != "dumb"
        usesColor = isTerminal && StandardStreams.outputStyle.isColored
        var size = winsize()
        let known = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        columns = known ? Int(size.ws_col) : 80
    }
}

extension Double {
    /// With one digit behind the point.
    var tenths: String {
        let tenths = Int((self * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}

import Glibc
import SockaliveCore

/// Standard output carries the answer and nothing else; standard error carries messages.
enum StandardStreams {
    /// A caller may have closed 0, 1 or 2. The next file opened would take that number, and the table
    /// would be written into it. A folder that is open for reading takes the place: writing to it fails.
    static func reserve() {
        while true {
            let file = open("/", O_RDONLY | O_DIRECTORY)
            guard (0...2).contains(file) else {
                close(file)
                return
            }
        }
    }

    /// Writes to standard output; false if it is closed or full.
    static func output(_ text: String) -> Bool {
        write(text, to: STDOUT_FILENO)
    }

    /// The same for a part of a document.
    static func output(_ bytes: UnsafeRawBufferPointer) -> Bool {
        write(bytes, to: STDOUT_FILENO)
    }

    /// One line on standard error, with the program's name before it.
    static func error(_ line: String) {
        _ = write("sockalive: \(line)\n", to: STDERR_FILENO)
    }

    /// To standard error, where that is a terminal.
    static func terminal(_ text: String) {
        _ = write(text, to: STDERR_FILENO)
    }

    static var outputIsTerminal: Bool {
        isatty(STDOUT_FILENO) == 1
    }

    /// Color, if there is a terminal to show it and the user did not ask for none (no-color.org).
    static var outputStyle: TextStyle {
        TextStyle(isColored: outputIsTerminal && getenv("NO_COLOR") == nil)
    }

    /// The columns of the terminal (ioctl_tty(2)); else as many as fit on a page.
    static var outputWidth: Int {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 160 }
        return Int(size.ws_col)
    }

    private static func write(_ text: String, to descriptor: Int32) -> Bool {
        var text = text
        return text.withUTF8 { write(UnsafeRawBufferPointer($0), to: descriptor) }
    }

    private static func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { return false }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
        return true
    }
}

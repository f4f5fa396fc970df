import Glibc
import SystemPackage

/// The text of a configuration file: a rule a line, its words as a shell would part them.
///
/// Quotes of either kind keep blanks; in double quotes and outside, a backslash keeps the next character.
/// `#` at the beginning of a word begins a comment. Nothing is expanded.
package enum RuleFile {
    package struct Line: Equatable, Sendable {
        package let number: Int
        package let words: [String]

        /// The words with one blank between them, quoted where that is needed to read them again.
        package var text: String { words.map(quoted).joined(separator: " ") }

        private func quoted(_ word: String) -> String {
            let isPlain = word.unicodeScalars.allSatisfy { !"\\\"' ".unicodeScalars.contains($0) && !$0.isInvisible }
            if isPlain && !word.isEmpty && !word.hasPrefix("#") { return word }
            return "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
        }
    }

    package struct Malformed: Error, Equatable, Sendable {
        package let line: Int
        package let reason: String
    }

    /// Longer than the longest path (PATH_MAX).
    static let maxWordLength = 4096
    static let maxLineLength = 1 << 16

    /// Lines that carry words. Windows editors begin a file with a byte order mark and end a line with CR LF: neither
    /// is part of a word.
    package static func lines(_ text: some Sequence<UInt8>) throws(Malformed) -> [Line] {
        let bytes = Array(text)
        let byteOrderMark: [UInt8] = [0xef, 0xbb, 0xbf]
        let rest = bytes.starts(with: byteOrderMark) ? bytes.dropFirst(byteOrderMark.count) : bytes[...]
        var lines: [Line] = []
        let parts = rest.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (index, bytes) in parts.enumerated() {
            let number = index + 1
            guard bytes.count <= maxLineLength else {
                throw Malformed(line: number, reason: "it has more than \(maxLineLength) bytes")
            }
            let bytes = bytes.last == UInt8(ascii: "\r") ? bytes.dropLast() : bytes
            guard let line = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
                throw Malformed(line: number, reason: "it is no text")
            }
            var words = Words(line: number)
            try words.read(line)
            if !words.complete.isEmpty { lines.append(Line(number: number, words: words.complete)) }
        }
        return lines
    }

    /// The words of one line, as they are read scalar by scalar.
    private struct Words {
        let line: Int
        var complete: [String] = []
        private var word = String.UnicodeScalarView()
        private var length = 0
        /// A word has begun, and may be empty so far.
        private var isInWord = false

        init(line: Int) {
            self.line = line
        }

        mutating func read(_ text: String) throws(Malformed) {
            var quote: Unicode.Scalar?
            var scalars = text.unicodeScalars.makeIterator()
            while let scalar = scalars.next() {
                switch scalar {
                case _ where scalar == quote: quote = nil
                case "\\" where quote != "'":
                    guard let next = scalars.next() else {
                        throw malformed("nothing follows the backslash at its end")
                    }
                    try append(next)
                case _ where quote != nil: try append(scalar)
                case "\"", "'":
                    quote = scalar
                    isInWord = true
                case " ", "\t", "\r": end()
                case "#" where !isInWord: return
                case _ where scalar.isInvisible: throw malformed(Self.reason(for: scalar))
                default: try append(scalar)
                }
            }
            if quote != nil { throw malformed("a quote is open in: \(String(word))") }
            end()
        }

        private mutating func append(_ scalar: Unicode.Scalar) throws(Malformed) {
            length += UTF8.width(scalar)
            guard length <= maxWordLength else { throw malformed("a word has more than \(maxWordLength) bytes") }
            word.append(scalar)
            isInWord = true
        }

        private mutating func end() {
            if isInWord { complete.append(String(word)) }
            word.removeAll(keepingCapacity: true)
            length = 0
            isInWord = false
        }

        private func malformed(_ reason: String) -> Malformed { Malformed(line: line, reason: reason) }

        /// Text that was copied from a web page has blanks that look like a space and are none. A shell takes them for
        /// letters; that would make `--process` with such a blank an unknown option, and nobody sees why.
        private static func reason(for scalar: Unicode.Scalar) -> String {
            let digits = String(scalar.value, radix: 16, uppercase: true)
            let code = "U+" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
            let name = scalar.properties.name.map { " (\($0.lowercased()))" } ?? ""
            return "the invisible character \(code)\(name) is no blank: write a space, or put the word in quotes"
        }
    }
}

extension RuleFile {
    private static let maxSize = 1 << 20
    private static let timeout: Int32 = 2000

    /// The bytes of a file or of a pipe whose writer does not keep the run waiting.
    package static func read(_ path: String) throws(Errno) -> [UInt8] {
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw Errno(rawValue: errno) }
        guard [S_IFREG, S_IFIFO].contains(status.st_mode & S_IFMT) else { throw .invalidArgument }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 14)
        while bytes.count <= maxSize {
            var polled = pollfd(fd: file, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, timeout) != 0 else { throw .timedOut }
            let count = Glibc.read(file, &chunk, chunk.count)
            if count == 0 { return bytes }
            if count > 0 { bytes += chunk[..<count] } else if errno != EINTR { throw Errno(rawValue: errno) }
        }
        throw .fileTooLarge
    }
}

extension Unicode.Scalar {
    /// Nothing is seen of it: a blank of another kind than space and tab, or a character without width.
    fileprivate var isInvisible: Bool {
        if value < 0x80 { return properties.isWhitespace }
        return properties.isWhitespace || properties.generalCategory == .format
    }
}

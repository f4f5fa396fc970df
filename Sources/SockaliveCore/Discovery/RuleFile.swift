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
    }

    package struct Malformed: Error, Equatable, Sendable {
        package let line: Int
        package let reason: String
    }

    /// Lines that carry words.
    package static func lines(_ text: some Sequence<UInt8>) throws(Malformed) -> [Line] {
        var lines: [Line] = []
        let parts = Array(text).split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (index, bytes) in parts.enumerated() {
            guard let line = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
                throw Malformed(line: index + 1, reason: "it is no text")
            }
            let words = try words(line, number: index + 1)
            if !words.isEmpty { lines.append(Line(number: index + 1, words: words)) }
        }
        return lines
    }

    private static func words(_ line: String, number: Int) throws(Malformed) -> [String] {
        var words: [String] = []
        var word: String?
        var quote: Unicode.Scalar?
        var scalars = line.unicodeScalars.makeIterator()
        while let scalar = scalars.next() {
            switch scalar {
            case _ where scalar == quote: quote = nil
            case "\\" where quote != "'":
                guard let next = scalars.next() else {
                    throw Malformed(line: number, reason: "nothing follows the backslash at its end")
                }
                word = (word ?? "") + String(next)
            case "\"" where quote == nil, "'" where quote == nil:
                quote = scalar
                word = word ?? ""
            case " " where quote == nil, "\t" where quote == nil, "\r" where quote == nil:
                if let ended = word { words.append(ended) }
                word = nil
            case "#" where quote == nil && word == nil: return words
            default: word = (word ?? "") + String(scalar)
            }
        }
        if quote != nil { throw Malformed(line: number, reason: "a quote is open in: \(word ?? "")") }
        return word.map { words + [$0] } ?? words
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

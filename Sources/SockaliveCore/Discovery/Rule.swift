import Glibc
import SystemPackage

/// Which sockets, and what they need.
package struct Rule: Equatable, Sendable {
    package let selection: Selection
    package let request: KeepaliveRequest

    package init(selection: Selection, request: KeepaliveRequest) {
        self.selection = selection
        self.request = request
    }
}

/// The rules of one run, at least one. They share one pass over `/proc`.
package struct RuleSet: Equatable, Sendable {
    package let rules: [Rule]

    package init(_ rules: [Rule]) {
        precondition(!rules.isEmpty)
        self.rules = rules
    }

    /// Finds all that any rule may mean; of one rule, exactly that.
    package var union: Selection { rules.dropFirst().reduce(rules[0].selection) { $0.union($1.selection) } }

    /// What all rules want, where they agree.
    package var sharedRequest: KeepaliveRequest? {
        rules.allSatisfy { $0.request == rules[0].request } ? rules[0].request : nil
    }

    /// What a socket needs: the strictest of the rules that mean it; nil where none does.
    ///
    /// - Parameter matches: whether a process is one of a rule's.
    func request(for socket: DiscoveredSocket, matches: (Int32, ProcessSelection) -> Bool) -> KeepaliveRequest? {
        KeepaliveRequest.strictest(rules(for: socket, matches).map(\.request))
    }

    private func rules(for socket: DiscoveredSocket, _ matches: (Int32, ProcessSelection) -> Bool) -> [Rule] {
        guard rules.count > 1 else { return rules }
        // Where nobody may see who holds it, it is counted as the process's with which it was found.
        let holders = socket.holders.isEmpty ? [socket.process.pid] : Set(socket.holders.map(\.pid)).sorted()
        return rules.filter { rule in
            rule.selection.sockets.accepts(wholly: socket.row)
                && holders.contains { matches($0, rule.selection.processes) }
        }
    }

    /// Rules may mean the socket, and none of them does for certain.
    func isUndecided(about socket: DiscoveredSocket, matches: (Int32, ProcessSelection) -> Bool) -> Bool {
        rules(for: socket, matches).allSatisfy { $0.selection.sockets.acceptsPeer(of: socket.row) == nil }
    }
}

/// A socket that some rule matches, with what it needs.
struct AssignedSocket {
    let socket: DiscoveredSocket
    let request: KeepaliveRequest
}

extension Snapshot {
    func assigned(_ rules: RuleSet, _ procfs: ProcFS) -> [AssignedSocket] {
        let matcher = ProcessMatcher(procfs: procfs)
        return sockets.compactMap { socket in
            guard let request = rules.request(for: socket, matches: matcher.matches) else { return nil }
            var socket = socket
            socket.isUndecided = rules.isUndecided(about: socket, matches: matcher.matches)
            return AssignedSocket(socket: socket, request: request)
        }
    }
}

/// Asks `/proc` once a process and a rule.
private final class ProcessMatcher {
    private struct Question: Hashable {
        let pid: Int32
        let selection: ProcessSelection
    }

    private let procfs: ProcFS
    private var answers: [Question: Bool] = [:]
    private var finders: [ProcessSelection: ProcessFinder] = [:]

    init(procfs: ProcFS) {
        self.procfs = procfs
    }

    func matches(_ pid: Int32, _ selection: ProcessSelection) -> Bool {
        let question = Question(pid: pid, selection: selection)
        if let answer = answers[question] { return answer }
        let finder = finders[selection] ?? ProcessFinder(procfs: procfs, selection: selection)
        finders[selection] = finder
        let answer = finder.matches(pid)
        answers[question] = answer
        return answer
    }
}

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

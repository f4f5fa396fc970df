import Testing

@testable import SockaliveCore

@Suite struct RuleFileTests {
    @Test(arguments: [
        ("--process a --port 1", ["--process", "a", "--port", "1"]), ("\t --off \r", ["--off"]), ("", []),
        ("  # x", []),
        ("--off # why", ["--off"]), ("--process a#b", ["--process", "a#b"]), ("--process 'a b'", ["--process", "a b"]),
        ("--process \"a \\\" b\"", ["--process", "a \" b"]), ("--process a\\ b", ["--process", "a b"]),
        ("--process ''", ["--process", ""]), ("'--process=a b'c", ["--process=a bc"]), ("'a\\b'", ["a\\b"]),
        ("'#'", ["#"]), ("$HOME *", ["$HOME", "*"]),
    ])
    func `a line is split into words`(line: String, words: [String]) throws {
        #expect(try RuleFile.lines(line.utf8) == (words.isEmpty ? [] : [.init(number: 1, words: words)]))
    }

    @Test func `lines keep their numbers`() throws {
        let lines = try RuleFile.lines("# one\n\na b\r\n  \nc".utf8)
        #expect(lines == [.init(number: 3, words: ["a", "b"]), .init(number: 5, words: ["c"])])
    }

    @Test(arguments: ["\n'a", "\n\"a", "\na\\", "\n\"a\\"]) func `an open quote gives its line`(text: String) {
        #expect(throws: RuleFile.Malformed.self) { try RuleFile.lines(text.utf8) }
        do { _ = try RuleFile.lines(text.utf8) } catch { #expect(error.line == 2) }
    }

    @Test(arguments: [[0xff], [0x61, 0], [0xe2, 0x80]] as [[UInt8]]) func `only UTF-8 text is valid`(bytes: [UInt8]) {
        #expect(throws: RuleFile.Malformed(line: 2, reason: "it is no text")) { try RuleFile.lines([10] + bytes) }
    }
}

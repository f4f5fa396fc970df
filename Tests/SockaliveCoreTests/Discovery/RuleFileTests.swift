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

    @Test(arguments: [
        ("--process   a\t--port 1 # why\r", "--process a --port 1"), ("--process 'a b'", "--process 'a b'"),
        (#"--process a\ b"#, "--process 'a b'"), (#"--process "a'b""#, #"--process 'a'\''b'"#),
        (#"--process 'a\b'"#, #"--process 'a\b'"#), ("--process ''", "--process ''"),
        ("--process '#'", "--process '#'"),
        ("--process a#b", "--process a#b"), ("--process 'a\u{a0}b'", "--process 'a\u{a0}b'"),
    ])
    func `a line is shown in one way, which means the same`(line: String, text: String) throws {
        let line = try #require(RuleFile.lines(line.utf8).first)
        #expect(line.text == text)
        #expect(try RuleFile.lines(line.text.utf8) == [line])
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

    private func malformed(_ text: String) -> RuleFile.Malformed? {
        do {
            _ = try RuleFile.lines(text.utf8)
            return nil
        } catch {
            return error
        }
    }

    @Test func `a file from a Windows editor is valid`() throws {
        let text = "\u{feff}--process a\r\n--process 'b c'\r\n"
        let lines: [RuleFile.Line] = [
            .init(number: 1, words: ["--process", "a"]), .init(number: 2, words: ["--process", "b c"]),
        ]
        #expect(try RuleFile.lines(text.utf8) == lines)
        #expect(try RuleFile.lines("\u{feff}".utf8) == [])
        #expect(malformed("--process a\\\r\n")?.reason.contains("backslash") == true)
    }

    @Test(arguments: [
        ("\u{a0}", "U+00A0 (no-break space)"), ("\u{2003}", "U+2003 (em space)"), ("\u{3000}", "U+3000"),
        ("\u{200b}", "U+200B"), ("\u{feff}", "U+FEFF"), ("\u{202e}", "U+202E"), ("\u{2028}", "U+2028"),
        ("\u{85}", "U+0085"), ("\u{b}", "U+000B"), ("\u{c}", "U+000C"),
    ])
    func `an invisible character is an error with its name and line`(blank: String, name: String) throws {
        for line in ["--port\(blank)5633", "\(blank)--off", "--off\(blank)", "--off \(blank)# why"] {
            let error = try #require(malformed("# first\n\(line)"), "\(line.debugDescription)")
            #expect(error.line == 2 && error.reason.contains(name), "\(error.reason)")
            #expect(!error.reason.contains(blank))
        }
        // Who quotes it means it; a comment means nothing.
        for line in ["'a\(blank)b'", "\"a\(blank)b\"", "a\\\(blank)b"] {
            #expect(try RuleFile.lines(line.utf8).first?.words == ["a\(blank)b"])
        }
        #expect(try RuleFile.lines("# a\(blank)b".utf8) == [])
    }

    @Test func `a word and a line have a maximum length`() throws {
        let word = String(repeating: "ä", count: 2048)
        #expect(try RuleFile.lines("'\(word)' \(word)".utf8).first?.words == [word, word])
        for line in ["\(word)x", "'\(word)x'", "\(word)\\x", "\(word)'x'"] {
            #expect(malformed("\n\(line)") == .init(line: 2, reason: "a word has more than 4096 bytes"))
        }
        let longest = String(repeating: "a ", count: 1 << 15)
        #expect(try RuleFile.lines(longest.utf8).first?.words.count == 1 << 15)
        #expect(malformed("\n\n\(longest)#") == .init(line: 3, reason: "it has more than 65536 bytes"))
    }
}

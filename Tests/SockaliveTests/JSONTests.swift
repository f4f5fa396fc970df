import Foundation
import SockaliveCore
import Testing

@testable import sockalive

/// A JSON document goes to terminals, and other processes choose the names in it.
@Suite struct JSONTests {
    private struct Document: Codable {
        let name: String
    }

    private static let hostile: [Unicode.Scalar] =
        (0x00...0x1f).map { Unicode.Scalar($0)! } + (0x7f...0x9f).map { Unicode.Scalar($0)! }
        + (0x200b...0x200f).map { Unicode.Scalar($0)! } + (0x2028...0x202e).map { Unicode.Scalar($0)! }
        + (0x2060...0x2069).map { Unicode.Scalar($0)! } + ["\u{61c}", "\u{ad}", "\u{feff}", "\u{e0041}"]

    @Test(arguments: hostile) func `what steers a terminal is escaped, and its value stays`(scalar: Unicode.Scalar)
        throws
    {
        let name = "a\(scalar)b"
        let text = try JSONOutput.text(Document(name: name))
        let raw = text.unicodeScalars.filter {
            $0 != "\n"
                && [.control, .format, .lineSeparator, .paragraphSeparator].contains($0.properties.generalCategory)
        }
        #expect(raw.isEmpty, "\(text.debugDescription)")
        #expect(try JSONDecoder().decode(Document.self, from: Data(text.utf8)).name == name)
        #expect(text.filter(\.isNewline).count == 3)
    }

    @Test(arguments: [
        ("\u{202e}", #"\u202e"#), ("\u{7f}", #"\u007f"#), ("\u{9b}", #"\u009b"#), ("\u{e0041}", #"\udb40\udc41"#),
    ])
    func `the escape has four digits, and beyond the basic plane it is a pair`(name: String, shown: String) throws {
        #expect(try JSONOutput.text(Document(name: name)) == "{\n  \"name\" : \"\(shown)\"\n}\n")
    }

    @Test func `letters of every script stay as they are`() throws {
        let name = "äñ漢字🙂é /\\\""
        let text = try JSONOutput.text(Document(name: name))
        #expect(text.contains("äñ漢字🙂é /"))
        #expect(try JSONDecoder().decode(Document.self, from: Data(text.utf8)).name == name)
    }
}

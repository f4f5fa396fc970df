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

    /// The document of a run is written part by part, and says the same.
    @Test(arguments: hostile + ["a", "\"", "\\", "/", "é", "漢", "🙂"])
    func `a document that is written part by part has the same text`(scalar: Unicode.Scalar) throws {
        let name = "x\(scalar)y"
        var parts: [[UInt8]] = []
        var json = JSONWriter {
            parts.append(Array($0))
            return true
        }
        json.object { $0.member("name", name) }
        let isWhole = json.finish()
        #expect(isWhole)
        let text = String(decoding: parts.joined(), as: UTF8.self)
        #expect(try JSONDecoder().decode(Document.self, from: Data(text.utf8)).name == name)
        let raw = text.unicodeScalars.filter {
            $0 != "\n"
                && [.control, .format, .lineSeparator, .paragraphSeparator].contains($0.properties.generalCategory)
        }
        #expect(raw.isEmpty, "\(text.debugDescription)")
    }

    @Test func `numbers, nulls, objects and arrays are written as JSON`() throws {
        var parts: [[UInt8]] = []
        var json = JSONWriter {
            parts.append(Array($0))
            return true
        }
        json.object { json in
            json.array("all") { json in
                for number in 0..<5000 { json.element { $0.member("number", number) } }
            }
            json.member("big", quoted: .max)
            json.array("empty") { _ in }
            json.member("half", -0.5)
            json.member("least", Int64.min)
            json.member("none", String?.none)
            json.object("object", Int?.none) { _, _ in }
            json.member("time", 2531.4)
            json.member("true", true)
            json.member("whole", 600.0)
        }
        let isWhole = json.finish()
        #expect(isWhole && parts.count > 1)
        let data = Data(parts.joined())
        let value = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
        #expect((value["all"] as? [[String: Int]])?.compactMap { $0["number"] } == Array(0..<5000))
        #expect(value["big"] as? String == "18446744073709551615")
        #expect((value["empty"] as? [Any])?.isEmpty == true)
        #expect(value["half"] as? Double == -0.5 && value["time"] as? Double == 2531.4)
        #expect(value["least"] as? Int64 == .min && value["whole"] as? Double == 600)
        #expect(value["none"] is NSNull && value["object"] is NSNull && value["true"] as? Bool == true)
    }

    /// At the end of the buffer (64 KiB), in several ways, and beyond it.
    @Test func `a text of any length is whole`() throws {
        for length in Array(65_480...65_540) + [131_071, 131_072, 131_073, 300_000] {
            let name = String(repeating: "abcdefg", count: length / 7) + String(repeating: "x", count: length % 7)
            var bytes: [UInt8] = []
            var json = JSONWriter {
                bytes += $0
                return true
            }
            json.object { json in
                json.member("name", name)
                json.member("number", 12_345_678)
            }
            let isWhole = json.finish()
            #expect(isWhole)
            let value = try #require(JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
            #expect(value["name"] as? String == name && value["number"] as? Int == 12_345_678)
        }
    }

    @Test func `whoever does not read is not written to again`() {
        var calls = 0
        var json = JSONWriter { _ in
            calls += 1
            return false
        }
        json.object { json in
            json.array("all") { json in
                for number in 0..<50_000 { json.element { $0.member("number", number) } }
            }
        }
        let isWhole = json.finish()
        #expect(!isWhole && calls == 1)
    }

    @Test func `letters of every script stay as they are`() throws {
        let name = "äñ漢字🙂é /\\\""
        let text = try JSONOutput.text(Document(name: name))
        #expect(text.contains("äñ漢字🙂é /"))
        #expect(try JSONDecoder().decode(Document.self, from: Data(text.utf8)).name == name)
    }
}

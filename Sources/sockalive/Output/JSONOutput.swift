import FoundationEssentials
import SockaliveCore

/// One JSON document, keys in snake_case and in a fixed order.
enum JSONOutput {
    static func text(_ document: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return escaped(String(decoding: try encoder.encode(document), as: UTF8.self)) + "\n"
    }

    /// The same document, with nothing in it that moves the cursor of a terminal or turns the reading direction. Outside
    /// of strings a document is ASCII, so what is escaped here stands in a string, and its value stays the same.
    private static func escaped(_ json: String) -> String {
        guard json.utf8.contains(where: { $0 >= 0x7f }) else { return json }
        var text = String.UnicodeScalarView()
        for scalar in json.unicodeScalars {
            if JSONText.isHarmless(scalar) {
                text.append(scalar)
            } else {
                text.append(contentsOf: JSONText.escape(scalar).unicodeScalars)
            }
        }
        return String(text)
    }
}

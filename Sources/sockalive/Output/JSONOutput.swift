import FoundationEssentials

/// One JSON document, keys in snake_case and in a fixed order.
enum JSONOutput {
    static func text(_ document: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return escaped(String(decoding: try encoder.encode(document), as: UTF8.self)) + "\n"
    }

    /// The same document, with nothing in it that moves the cursor of a terminal or turns the reading direction.
    ///
    /// A document is read on terminals, and another process chose the names in it. JSON itself demands escapes for the
    /// controls below U+0020 only (RFC 8259, section 7). Outside of strings a document is ASCII, so what is escaped here
    /// stands in a string, and its value stays the same.
    private static func escaped(_ json: String) -> String {
        guard json.utf8.contains(where: { $0 >= 0x7f }) else { return json }
        var text = String.UnicodeScalarView()
        for scalar in json.unicodeScalars {
            if isHarmless(scalar) {
                text.append(scalar)
            } else {
                text.append(contentsOf: escape(scalar).unicodeScalars)
            }
        }
        return String(text)
    }

    private static func isHarmless(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.value < 0x7f { return true }
        return switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }

    /// `\u202e`; beyond the basic plane a surrogate pair.
    private static func escape(_ scalar: Unicode.Scalar) -> String {
        String(scalar).utf16.map { unit in
            let digits = String(unit, radix: 16)
            return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }.joined()
    }
}

/// A JSON text (RFC 8259), as far as it has to be read: strings, arrays and objects. Pure.
///
/// Container engines keep the names of their containers in such files, and some belong to users. So the depth and the
/// number of values are bounded; whoever reads a user's file bounds its size (``NameBudget``).
enum JSONValue: Equatable {
    case string([UInt8])
    case array([JSONValue])
    case object([[UInt8]: JSONValue])
    /// A number, `true`, `false` or `null`.
    case other

    private static let maxDepth = 32
    /// A value takes some hundred bytes of memory.
    static let maxValues = 100_000

    /// nil if it is no JSON text, or has too many values.
    init?(_ text: some Sequence<UInt8>) {
        var reader = Reader(Array(text))
        guard let value = reader.value(depth: 0), reader.isAtEnd else { return nil }
        self = value
    }

    subscript(_ key: String) -> JSONValue? {
        if case .object(let members) = self { members[Array(key.utf8)] } else { nil }
    }

    var bytes: [UInt8]? {
        if case .string(let bytes) = self { bytes } else { nil }
    }

    var elements: [JSONValue] {
        if case .array(let elements) = self { elements } else { [] }
    }

    private struct Reader {
        private let text: [UInt8]
        private var position = 0
        private var values = 0

        init(_ text: [UInt8]) {
            self.text = text
        }

        var isAtEnd: Bool {
            mutating get {
                skipBlanks()
                return position == text.count
            }
        }

        mutating func value(depth: Int) -> JSONValue? {
            skipBlanks()
            values += 1
            guard depth < maxDepth, values <= maxValues, let first = peek else { return nil }
            switch first {
            case UInt8(ascii: "\""): return string().map(JSONValue.string)
            case UInt8(ascii: "["): return array(depth)
            case UInt8(ascii: "{"): return object(depth)
            default: return other()
            }
        }

        private var peek: UInt8? { position < text.count ? text[position] : nil }

        private mutating func skipBlanks() {
            while let byte = peek, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d { position += 1 }
        }

        private mutating func take(_ byte: Unicode.Scalar) -> Bool {
            skipBlanks()
            guard peek == UInt8(ascii: byte) else { return false }
            position += 1
            return true
        }

        private mutating func array(_ depth: Int) -> JSONValue? {
            position += 1
            var elements: [JSONValue] = []
            if take("]") { return .array(elements) }
            while true {
                guard let element = value(depth: depth + 1) else { return nil }
                elements.append(element)
                if take("]") { return .array(elements) }
                guard take(",") else { return nil }
            }
        }

        /// Of two members of one name the last counts, as in Go, in which the engines are written.
        private mutating func object(_ depth: Int) -> JSONValue? {
            position += 1
            var members: [[UInt8]: JSONValue] = [:]
            if take("}") { return .object(members) }
            while true {
                skipBlanks()
                guard peek == UInt8(ascii: "\""), let name = string(), take(":"), let value = value(depth: depth + 1)
                else { return nil }
                members[name] = value
                if take("}") { return .object(members) }
                guard take(",") else { return nil }
            }
        }

        private mutating func string() -> [UInt8]? {
            position += 1
            var bytes: [UInt8] = []
            while let byte = peek {
                position += 1
                switch byte {
                case UInt8(ascii: "\""): return bytes
                case UInt8(ascii: "\\"):
                    guard let scalar = escape() else { return nil }
                    bytes += Array(String(scalar).utf8)
                case 0..<0x20: return nil
                default: bytes.append(byte)
                }
            }
            return nil
        }

        private mutating func escape() -> Unicode.Scalar? {
            guard let byte = peek else { return nil }
            position += 1
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
            case UInt8(ascii: "b"): return "\u{8}"
            case UInt8(ascii: "f"): return "\u{c}"
            case UInt8(ascii: "n"): return "\n"
            case UInt8(ascii: "r"): return "\r"
            case UInt8(ascii: "t"): return "\t"
            case UInt8(ascii: "u"): return unicode()
            default: return nil
            }
        }

        /// Half of a surrogate pair becomes U+FFFD.
        private mutating func unicode() -> Unicode.Scalar? {
            guard let first = unit() else { return nil }
            guard (0xd800..<0xdc00).contains(first) else { return Unicode.Scalar(first) ?? "\u{fffd}" }
            let start = position
            guard text[position...].starts(with: "\\u".utf8) else { return "\u{fffd}" }
            position += 2
            guard let second = unit() else { return nil }
            guard (0xdc00..<0xe000).contains(second) else {
                position = start
                return "\u{fffd}"
            }
            return Unicode.Scalar(0x1_0000 + (first - 0xd800) << 10 + (second - 0xdc00))
        }

        private mutating func unit() -> UInt32? {
            guard text.count - position >= 4, let unit: UInt32 = text[position..<position + 4].hexadecimal() else {
                return nil
            }
            position += 4
            return unit
        }

        /// Its bytes are not looked at any closer.
        private mutating func other() -> JSONValue? {
            let start = position
            while let byte = peek, isOfWord(byte) { position += 1 }
            return position > start ? .other : nil
        }

        private func isOfWord(_ byte: UInt8) -> Bool {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "a")...UInt8(ascii: "z"):
                true
            default: "+-.".utf8.contains(byte)
            }
        }
    }
}

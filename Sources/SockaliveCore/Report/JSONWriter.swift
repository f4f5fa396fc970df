/// Writes one JSON document as it is made, so that a document of twenty thousand sockets is never in memory as a whole.
///
/// Two blanks of indentation a level, as `JSONEncoder` writes it for the other documents. The caller gives the keys in
/// their alphabetic order.
///
/// A document of a busy host has a million values, most of some bytes. They are copied into memory of fixed size: an array
/// asks at each of them whether it is shared, and whether it is to grow, which takes longer than all the rest.
package struct JSONWriter {
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferSize, alignment: 8)
    /// So many bytes of the buffer are waiting.
    private var count = 0
    private let sink: (UnsafeRawBufferPointer) -> Bool
    private var depth = 0
    private var hasMember = false
    /// The reader has gone.
    package private(set) var isBroken = false

    private static let bufferSize = 1 << 16

    /// - Parameter sink: takes the next part of the document; false if nobody reads it.
    package init(sink: @escaping (UnsafeRawBufferPointer) -> Bool) {
        self.sink = sink
    }

    /// Once, at the end.
    ///
    /// - Returns: whether all was written.
    package mutating func finish() -> Bool {
        append(UInt8(ascii: "\n"))
        flush()
        buffer.deallocate()
        return !isBroken
    }

    private mutating func flush() {
        hand(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        count = 0
    }

    private mutating func hand(_ bytes: UnsafeRawBufferPointer) {
        if !isBroken && !bytes.isEmpty { isBroken = !sink(bytes) }
    }

    // MARK: structure

    package mutating func object(_ body: (inout JSONWriter) -> Void) {
        nest(UInt8(ascii: "{"), UInt8(ascii: "}"), body)
    }

    package mutating func object(_ key: StaticString, _ body: (inout JSONWriter) -> Void) {
        name(key)
        object(body)
    }

    /// Null where there is no value.
    package mutating func object<Value>(_ key: StaticString, _ value: Value?, _ body: (inout JSONWriter, Value) -> Void)
    {
        name(key)
        guard let value else { return null() }
        object { body(&$0, value) }
    }

    package mutating func array(_ key: StaticString, _ body: (inout JSONWriter) -> Void) {
        name(key)
        nest(UInt8(ascii: "["), UInt8(ascii: "]"), body)
    }

    /// Null where there is no value.
    package mutating func array<Value>(_ key: StaticString, _ value: Value?, _ body: (inout JSONWriter, Value) -> Void)
    {
        guard let value else {
            name(key)
            return null()
        }
        array(key) { body(&$0, value) }
    }

    /// One object in an array.
    package mutating func element(_ body: (inout JSONWriter) -> Void) {
        begin()
        object(body)
    }

    private mutating func nest(_ open: UInt8, _ close: UInt8, _ body: (inout JSONWriter) -> Void) {
        append(open)
        depth += 1
        hasMember = false
        body(&self)
        depth -= 1
        if hasMember { indent() }
        append(close)
        hasMember = true
    }

    private mutating func name(_ key: StaticString) {
        begin()
        append(UInt8(ascii: "\""))
        append(key)
        append("\" : ")
    }

    private mutating func begin() {
        if hasMember { append(UInt8(ascii: ",")) }
        indent()
        hasMember = true
    }

    private static let indentation: StaticString = "\n                "

    private mutating func indent() {
        let count = min(1 + 2 * depth, Self.indentation.utf8CodeUnitCount)
        append(UnsafeRawBufferPointer(start: Self.indentation.utf8Start, count: count))
    }

    // MARK: values

    package mutating func member(_ key: StaticString, _ value: String?) {
        name(key)
        value.map { string($0) } ?? null()
    }

    package mutating func member(_ key: StaticString, _ value: Bool?) {
        name(key)
        switch value {
        case true?: append("true")
        case false?: append("false")
        case nil: null()
        }
    }

    package mutating func member(_ key: StaticString, _ value: (some FixedWidthInteger)?) {
        name(key)
        value.map { number($0) } ?? null()
    }

    package mutating func member(_ key: StaticString, _ values: [String]?) {
        list(key, values) { $0.string($1) }
    }

    package mutating func member(_ key: StaticString, _ values: [some FixedWidthInteger]?) {
        list(key, values) { $0.number($1) }
    }

    private mutating func list<Value>(
        _ key: StaticString, _ values: [Value]?, _ write: (inout JSONWriter, Value) -> Void
    ) {
        array(key, values) { json, values in
            for value in values {
                json.begin()
                write(&json, value)
            }
        }
    }

    /// A whole number in quotes, for readers whose numbers have 53 bits.
    package mutating func member(_ key: StaticString, quoted value: UInt64?) {
        name(key)
        guard let value else { return null() }
        append(UInt8(ascii: "\""))
        number(value)
        append(UInt8(ascii: "\""))
    }

    /// With three digits behind the point at most: the kernel's times are milliseconds.
    package mutating func member(_ key: StaticString, _ value: Double?) {
        name(key)
        guard let value else { return null() }
        let thousandths = (value * 1000).rounded()
        guard abs(thousandths) < 1e15 else { return append(value.isFinite ? "\(value)" : "null") }
        let whole = Int(thousandths.magnitude)
        if thousandths < 0 { append(UInt8(ascii: "-")) }
        number(whole / 1000)
        var rest = whole % 1000
        guard rest > 0 else { return }
        append(UInt8(ascii: "."))
        for place in [100, 10, 1] where rest > 0 {
            append(UInt8(ascii: "0") + UInt8(rest / place))
            rest %= place
        }
    }

    private mutating func null() { append("null") }

    private mutating func number(_ value: some FixedWidthInteger) {
        var digits: (UInt64, UInt64, UInt64) = (0, 0, 0)
        if value < 0 { append(UInt8(ascii: "-")) }
        var rest = UInt64(value.magnitude)
        withUnsafeMutableBytes(of: &digits) { digits in
            var start = digits.count
            repeat {
                start -= 1
                digits[start] = UInt8(ascii: "0") + UInt8(rest % 10)
                rest /= 10
            } while rest > 0
            append(UnsafeRawBufferPointer(rebasing: digits[start...]))
        }
    }

    private mutating func string(_ value: String) {
        append(UInt8(ascii: "\""))
        var value = value
        let isPlain = value.withUTF8 { text in
            guard text.allSatisfy({ $0 >= 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") })
            else { return false }
            append(UnsafeRawBufferPointer(text))
            return true
        }
        if !isPlain {
            for scalar in value.unicodeScalars { append(JSONText.escaped(scalar)) }
        }
        append(UInt8(ascii: "\""))
    }

    private mutating func append(_ byte: UInt8) {
        if count == buffer.count { flush() }
        buffer[count] = byte
        count += 1
    }

    private mutating func append(_ text: StaticString) {
        append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    /// What is larger than the buffer goes past it.
    private mutating func append(_ bytes: UnsafeRawBufferPointer) {
        if bytes.count > buffer.count - count { flush() }
        guard bytes.count <= buffer.count else { return hand(bytes) }
        guard let start = bytes.baseAddress else { return }
        (buffer.baseAddress! + count).copyMemory(from: start, byteCount: bytes.count)
        count += bytes.count
    }
}

/// What stands in a string of a JSON document.
package enum JSONText {
    /// Whether a scalar neither moves the cursor of a terminal nor turns the reading direction.
    ///
    /// A document is read on terminals, and another process chose the names in it. JSON itself demands escapes for the
    /// controls below U+0020 only (RFC 8259, section 7).
    package static func isHarmless(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.value < 0x7f { return true }
        return switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }

    /// `\u202e`; beyond the basic plane a surrogate pair.
    package static func escape(_ scalar: Unicode.Scalar) -> String {
        String(scalar).utf16.map { unit in
            let digits = String(unit, radix: 16)
            return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }.joined()
    }

    fileprivate static func escaped(_ scalar: Unicode.Scalar) -> String {
        switch scalar {
        case "\"": "\\\""
        case "\\": "\\\\"
        case "\n": "\\n"
        case "\t": "\\t"
        default: scalar.value >= 0x20 && isHarmless(scalar) ? String(scalar) : escape(scalar)
        }
    }
}

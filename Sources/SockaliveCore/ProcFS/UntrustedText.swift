/// Bytes that another process chose: its name, its path. Hostile until shown otherwise.
///
/// A process names itself by prctl(PR_SET_NAME) or by the file it was started from, and
/// may put escape sequences, line ends or direction marks there. The raw bytes serve for
/// comparison; whatever a person or a log sees goes through ``escaped``.
package struct UntrustedText: Hashable, Sendable {
    package let bytes: [UInt8]

    package init(_ bytes: some Sequence<UInt8>) {
        self.bytes = Array(bytes)
    }

    package init(_ text: String) {
        self.init(text.utf8)
    }

    /// The text with each invalid UTF-8 sequence replaced; for JSON, which escapes by its own rules.
    package var decoded: String {
        String(decoding: bytes, as: UTF8.self)
    }

    /// The text in which nothing can move the cursor, break the line or turn the reading direction.
    ///
    /// Control bytes become `\n`, `\t`, `\x1b`; format characters (direction marks, zero-width
    /// ones) become `\u{202e}`; bytes that are no UTF-8 become `\xff`; a backslash is doubled, so
    /// that no name can pretend to be an escaped one.
    package var escaped: String {
        if bytes.allSatisfy({ (0x20..<0x7f).contains($0) && $0 != UInt8(ascii: "\\") }) { return decoded }
        var result = ""
        var rest = bytes[...]
        while let first = rest.first {
            if first < 0x80 {
                result += Self.escaped(ascii: first)
                rest.removeFirst()
            } else if let (scalar, length) = Self.scalar(at: rest) {
                result += Self.escaped(scalar)
                rest.removeFirst(length)
            } else {
                result += "\\x" + hex(first)
                rest.removeFirst()
            }
        }
        return result
    }

    private static func escaped(ascii byte: UInt8) -> String {
        switch byte {
        case UInt8(ascii: "\n"): "\\n"
        case UInt8(ascii: "\t"): "\\t"
        case UInt8(ascii: "\\"): "\\\\"
        case 0x20..<0x7f: String(UnicodeScalar(byte))
        default: "\\x" + hex(byte)
        }
    }

    private static func escaped(_ scalar: Unicode.Scalar) -> String {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned,
            .nonspacingMark, .enclosingMark, .spacingMark:
            "\\u{" + String(scalar.value, radix: 16) + "}"
        case .spaceSeparator:
            "\\u{" + String(scalar.value, radix: 16) + "}"
        default:
            String(scalar)
        }
    }

    /// One scalar and its length in bytes, or nil where the bytes are no UTF-8.
    private static func scalar(at bytes: ArraySlice<UInt8>) -> (Unicode.Scalar, Int)? {
        var decoder = UTF8()
        var iterator = bytes.prefix(4).makeIterator()
        guard case .scalarValue(let scalar) = decoder.decode(&iterator) else { return nil }
        return (scalar, String(scalar).utf8.count)
    }
}

/// A byte as two hexadecimal digits.
private func hex(_ byte: UInt8) -> String {
    let digits = String(byte, radix: 16)
    return byte < 16 ? "0" + digits : digits
}

/// Small readers of ASCII numbers in kernel text. They never trap: an overflow, an empty
/// field or a foreign character is nil.
extension Sequence<UInt8> {
    /// The whole sequence as an unsigned decimal number.
    func decimal<Number: FixedWidthInteger>(_: Number.Type = Number.self) -> Number? {
        number(radix: 10)
    }

    /// The whole sequence as a hexadecimal number, digits of either case.
    func hexadecimal<Number: FixedWidthInteger>(_: Number.Type = Number.self) -> Number? {
        number(radix: 16)
    }

    @inline(__always)
    private func number<Number: FixedWidthInteger>(radix: Number) -> Number? {
        var value: Number = 0
        var isEmpty = true
        for byte in self {
            guard let digit = digitValue(byte), Number(digit) < radix else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: radix)
            let (sum, carry) = product.addingReportingOverflow(Number(digit))
            if overflow || carry { return nil }
            value = sum
            isEmpty = false
        }
        return isEmpty ? nil : value
    }
}

@inline(__always)
private func digitValue(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}

extension RandomAccessCollection<UInt8> {
    /// The inode in a descriptor link: `socket:[4711]` is 4711, anything else nil (proc_pid_fd(5)).
    func inode(ofKind kind: StaticString) -> UInt64? {
        let prefix = UnsafeBufferPointer(start: kind.utf8Start, count: kind.utf8CodeUnitCount)
        guard count > prefix.count + 3, starts(with: prefix), last == UInt8(ascii: "]") else { return nil }
        let rest = dropFirst(prefix.count)
        guard rest.starts(with: [UInt8(ascii: ":"), UInt8(ascii: "[")]) else { return nil }
        return rest.dropFirst(2).dropLast().decimal()
    }
}

/// The words of a line, without an array of them.
struct Fields {
    private var unread: Slice<UnsafeBufferPointer<UInt8>>

    init(_ line: Slice<UnsafeBufferPointer<UInt8>>) {
        unread = line
    }

    /// What stands behind the words so far.
    var rest: Slice<UnsafeBufferPointer<UInt8>> { unread.drop { $0 == UInt8(ascii: " ") } }

    mutating func next() -> Slice<UnsafeBufferPointer<UInt8>>? {
        let word = rest.prefix { $0 != UInt8(ascii: " ") }
        unread = unread[word.endIndex...]
        return word.isEmpty ? nil : word
    }
}

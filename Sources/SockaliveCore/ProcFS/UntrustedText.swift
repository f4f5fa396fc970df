/// Bytes that another process chose: its name, its path. They may be hostile.
///
/// A process sets its name by prctl(PR_SET_NAME) or by the name of its file. It may contain escape sequences, line
/// ends or direction marks. The raw bytes are for comparison. Terminals and logs get ``escaped``.
package struct UntrustedText: Hashable, Sendable {
    package let bytes: [UInt8]

    package init(_ bytes: some Sequence<UInt8>) {
        self.bytes = Array(bytes)
    }

    package init(_ text: String) {
        self.init(text.utf8)
    }

    /// The text with each invalid UTF-8 sequence replaced. It is for JSON, which has its own escapes.
    package var decoded: String {
        String(decoding: bytes, as: UTF8.self)
    }

    /// The text without anything that moves the cursor, breaks the line or changes the reading direction.
    ///
    /// Control bytes become `\n`, `\t`, `\x1b`. Format characters (direction marks, zero-width ones) become `\u{202e}`.
    /// Bytes that are not UTF-8 become `\xff`. A backslash is doubled, so no name can imitate an escaped one.
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

    /// One scalar and its length in bytes, or nil if the bytes are not UTF-8.
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

extension RandomAccessCollection<UInt8> {
    /// The inode in a descriptor link (proc_pid_fd(5)): 4711 for `socket:[4711]`; nil for any other text.
    func inode(ofKind kind: StaticString) -> UInt64? {
        let prefix = UnsafeBufferPointer(start: kind.utf8Start, count: kind.utf8CodeUnitCount)
        guard count > prefix.count + 3, starts(with: prefix), last == UInt8(ascii: "]") else { return nil }
        let rest = dropFirst(prefix.count)
        guard rest.starts(with: [UInt8(ascii: ":"), UInt8(ascii: "[")]) else { return nil }
        return rest.dropFirst(2).dropLast().decimal()
    }
}

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

/// Parsers of ASCII numbers in kernel text. They never trap: an overflow, an empty field or a foreign character
/// gives nil.
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

/// The words of a line, read one by one without an array.
struct Fields {
    private var unread: Slice<UnsafeBufferPointer<UInt8>>

    init(_ line: Slice<UnsafeBufferPointer<UInt8>>) {
        unread = line
    }

    /// The unread part, without leading spaces.
    var rest: Slice<UnsafeBufferPointer<UInt8>> { unread.drop { $0 == UInt8(ascii: " ") } }

    mutating func next() -> Slice<UnsafeBufferPointer<UInt8>>? {
        let word = rest.prefix { $0 != UInt8(ascii: " ") }
        unread = unread[word.endIndex...]
        return word.isEmpty ? nil : word
    }
}

extension UnsafeRawBufferPointer {
    /// A number in this machine's byte order; nil if the bytes end before it.
    @inline(__always)
    func number<Number: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> Number? {
        guard offset >= 0, offset <= count - MemoryLayout<Number>.size else { return nil }
        return loadUnaligned(fromByteOffset: offset, as: Number.self)
    }
}

extension [UInt8] {
    /// Appends a number in this machine's byte order.
    mutating func append(number: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: number) { append(contentsOf: $0) }
    }
}

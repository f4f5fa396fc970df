/// The messages of one netlink datagram (netlink(7)). Pure: bytes in, messages out.
///
/// Each starts with a header of 16 bytes: length, type, flags, sequence number, sender's port. The length
/// is the kernel's word and is believed only as far as the datagram reaches: a message that is cut off
/// ends the reading, and ``isCut`` says so.
struct NetlinkMessages: Sequence, IteratorProtocol {
    struct Message {
        let type: UInt16
        let flags: UInt16
        let sequence: UInt32
        let payload: UnsafeRawBufferPointer
    }

    static let headerSize = 16

    private var rest: UnsafeRawBufferPointer
    private(set) var isCut = false

    init(_ datagram: UnsafeRawBufferPointer) {
        rest = datagram
    }

    mutating func next() -> Message? {
        guard !rest.isEmpty else { return nil }
        guard let length: UInt32 = rest.number(at: 0), let type: UInt16 = rest.number(at: 4),
            let flags: UInt16 = rest.number(at: 6), let sequence: UInt32 = rest.number(at: 8),
            length >= Self.headerSize, length <= rest.count
        else {
            isCut = true
            rest = UnsafeRawBufferPointer(rebasing: rest[rest.endIndex...])
            return nil
        }
        let payload = UnsafeRawBufferPointer(rebasing: rest[Self.headerSize..<Int(length)])
        rest = UnsafeRawBufferPointer(rebasing: rest[Swift.min(rest.count, Int(length).alignedTo4)...])
        return Message(type: type, flags: flags, sequence: sequence, payload: payload)
    }
}

/// The attributes behind a message's fixed part: length, type, value, padded to 4 bytes (rtnetlink(7)).
struct NetlinkAttributes: Sequence, IteratorProtocol {
    private var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) {
        rest = bytes
    }

    mutating func next() -> (type: UInt16, value: UnsafeRawBufferPointer)? {
        guard let length: UInt16 = rest.number(at: 0), let type: UInt16 = rest.number(at: 2),
            length >= 4, length <= rest.count
        else { return nil }
        let value = UnsafeRawBufferPointer(rebasing: rest[4..<Int(length)])
        rest = UnsafeRawBufferPointer(rebasing: rest[Swift.min(rest.count, Int(length).alignedTo4)...])
        return (type, value)
    }
}

extension UnsafeRawBufferPointer {
    /// A number in this machine's byte order; nil where the bytes do not reach so far.
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

extension Int {
    fileprivate var alignedTo4: Int { (self + 3) & ~3 }
}

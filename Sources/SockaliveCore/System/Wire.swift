/// Values as bytes, from a process to its parent, which is the same program: numbers and trivial structures as they lie
/// in memory, texts and arrays with their length before them. Pure.
struct WireWriter {
    private(set) var bytes: [UInt8] = []

    mutating func removeAll() { bytes.removeAll(keepingCapacity: true) }

    mutating func write<Value: BitwiseCopyable>(_ value: Value) {
        withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
    }

    mutating func write(_ text: [UInt8]) {
        write(Int32(clamping: text.count))
        bytes.append(contentsOf: text)
    }

    mutating func write(_ text: String) { write(Array(text.utf8)) }

    mutating func write<Value: BitwiseCopyable>(_ values: [Value]) {
        write(Int32(clamping: values.count))
        for value in values { write(value) }
    }

    mutating func write<Value>(_ value: Value?, _ body: (inout WireWriter, Value) -> Void) {
        write(value != nil)
        if let value { body(&self, value) }
    }

    /// Puts the length of what `body` writes before it.
    mutating func frame(_ body: (inout WireWriter) -> Void) {
        let start = bytes.count
        write(Int32(0))
        body(&self)
        let length = Int32(clamping: bytes.count - start - 4)
        bytes.withUnsafeMutableBytes { $0.storeBytes(of: length, toByteOffset: start, as: Int32.self) }
    }
}

/// Hands on a frame of a byte and one value, which lies on the stack.
func withFrame<Value: BitwiseCopyable>(_ kind: UInt8, _ value: Value, _ body: (UnsafeRawBufferPointer) -> Void) {
    let length = 1 + MemoryLayout<Value>.size
    withUnsafeTemporaryAllocation(byteCount: 4 + length, alignment: 8) { bytes in
        bytes.storeBytes(of: Int32(length), as: Int32.self)
        bytes.storeBytes(of: kind, toByteOffset: 4, as: UInt8.self)
        bytes.storeBytes(of: value, toByteOffset: 5, as: Value.self)
        body(UnsafeRawBufferPointer(bytes))
    }
}

/// Reads what ``WireWriter`` wrote.
struct WireReader {
    struct Malformed: Error {}

    private let bytes: UnsafeRawBufferPointer
    private(set) var position = 0

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    /// Numbers, and structures of numbers. Only this same program writes them: whether the bits are a value of the type
    /// is not checked.
    mutating func read<Value: BitwiseCopyable>(_: Value.Type = Value.self) throws(Malformed) -> Value {
        let size = MemoryLayout<Value>.size
        guard bytes.count - position >= size else { throw Malformed() }
        defer { position += size }
        return bytes.loadUnaligned(fromByteOffset: position, as: Value.self)
    }

    private mutating func count(of size: Int) throws(Malformed) -> Int {
        let count = Int(try read(Int32.self))
        guard count >= 0, count <= (bytes.count - position) / max(1, size) else { throw Malformed() }
        return count
    }

    mutating func readBytes() throws(Malformed) -> [UInt8] {
        let count = try count(of: 1)
        defer { position += count }
        return Array(bytes[position..<position + count])
    }

    mutating func readText() throws(Malformed) -> String {
        String(decoding: try readBytes(), as: UTF8.self)
    }

    mutating func readArray<Value: BitwiseCopyable>(_: Value.Type = Value.self) throws(Malformed) -> [Value] {
        var values: [Value] = []
        for _ in 0..<(try count(of: MemoryLayout<Value>.size)) { values.append(try read()) }
        return values
    }

    mutating func readOptional<Value>(
        _ body: (inout WireReader) throws(Malformed) -> Value
    ) throws(Malformed) -> Value? {
        try read(Bool.self) ? try body(&self) : nil
    }

    /// The next whole frame; nil where the rest has not come yet.
    mutating func nextFrame() throws(Malformed) -> WireReader? {
        guard bytes.count - position >= 4 else { return nil }
        let length = Int(bytes.loadUnaligned(fromByteOffset: position, as: Int32.self))
        guard length >= 0 else { throw Malformed() }
        guard bytes.count - position - 4 >= length else { return nil }
        let start = position + 4
        position = start + length
        return WireReader(UnsafeRawBufferPointer(rebasing: bytes[start..<position]))
    }
}

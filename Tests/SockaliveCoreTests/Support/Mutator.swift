import Glibc

/// Random numbers that repeat with the same seed (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below the bound.
    mutating func below(_ bound: Int) -> Int {
        bound > 0 ? Int(truncatingIfNeeded: next() % UInt64(bound)) : 0
    }
}

/// Bytes directly before an unreadable page: a read beyond the end crashes the test run.
struct GuardedBytes: ~Copyable {
    private let mapping: UnsafeMutableRawPointer
    private let capacity: Int
    private static let page = Int(sysconf(Int32(_SC_PAGESIZE)))

    init(capacity: Int) {
        self.capacity = (capacity + Self.page - 1) / Self.page * Self.page
        let size = self.capacity + Self.page
        mapping = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        precondition(mprotect(mapping + self.capacity, Self.page, PROT_NONE) == 0)
    }

    deinit {
        munmap(mapping, capacity + Self.page)
    }

    func with(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) -> Void) {
        let start = mapping + capacity - bytes.count
        bytes.withUnsafeBytes { start.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(start), byteCount: $0.count) }
        body(UnsafeRawBufferPointer(start: start, count: bytes.count))
    }
}

/// Makes broken inputs from valid ones.
struct Mutator {
    var random: SeededGenerator
    let seeds: [[UInt8]]
    private static let maxBytes = 2048

    /// A valid input with a few changes.
    mutating func next() -> [UInt8] {
        var bytes = seeds[random.below(seeds.count)]
        for _ in 0...random.below(4) { change(&bytes) }
        return Array(bytes.prefix(Self.maxBytes))
    }

    private mutating func change(_ bytes: inout [UInt8]) {
        let place = random.below(bytes.count)
        let end = min(bytes.count, place + 1 + random.below(16))
        switch random.below(9) {
        case 0 where !bytes.isEmpty: bytes[place] ^= 1 << UInt8(random.below(8))
        case 1 where !bytes.isEmpty: bytes[place] = UInt8(truncatingIfNeeded: random.next())
        case 2 where !bytes.isEmpty: bytes[place] = Self.telling[random.below(Self.telling.count)]
        case 3: bytes.removeSubrange(place..<end)
        case 4: bytes.removeSubrange(place...)
        case 5: bytes.insert(contentsOf: bytes[place..<end], at: place)
        case 6: bytes.insert(UInt8(truncatingIfNeeded: random.next()), at: place)
        case 7: bytes.replaceSubrange(place..., with: seeds[random.below(seeds.count)].dropFirst(place))
        default: for index in place..<end { bytes[index] = 0xff }
        }
    }

    /// Bytes that parsers react to.
    private static let telling = [0, 1, 0x7f, 0x80, 0xff] + Array(" :\n\t()[]0fFg-+".utf8)
}

/// Memory of the target that a held thread needs while it is held: what is put there, and what lay there.
///
/// The stack grows downwards: read the layout from the bottom. The `ret` of a call falls into `close`, the one of
/// that into `restore`.
final class ScratchArea {
    /// What a single call reads and writes, at the very start: its words, a length, a value.
    static let words = 0
    static let length = words + wordsSize
    static let value = length + 4
    static let valueSize = 256
    static let slotSize = value + valueSize

    /// What a setsockopt and the getsockopt behind it do, for one of several options.
    static func step(_ index: Int) -> Int { slotSize + index * Step.size }
    static let maxSteps = 5

    /// Where things lie in a step.
    enum Step {
        static let wordsOfSet = 0
        static let wordsOfGet = wordsOfSet + wordsSize
        static let given = wordsOfGet + wordsSize
        static let length = given + 4
        static let value = length + 4
        /// One more than an integer needs: a length of 4 shows that the reading succeeded.
        static let valueSize = 8
        static let size = value + valueSize
    }

    /// Frames that each make the next of several calls.
    static func chain(_ index: Int) -> Int { step(maxSteps) + index * SignalFrame.room }
    static let maxCalls = 2 * maxSteps

    /// The frame that runs close(duplicate).
    static let close = chain(maxCalls)
    /// The frame that loads what was found.
    static let restore = close + SignalFrame.room
    static let xsave = (restore + SignalFrame.room + 63) & ~63
    private static let capacity = xsave + XSaveArea.capacity
    private static let wordsSize = RemoteSyscall.wordCount * MemoryLayout<UInt32>.size

    /// What is put there.
    let ours: UnsafeMutableRawBufferPointer
    /// What lay there.
    let saved: UnsafeMutableRawBufferPointer
    /// How much of it is used.
    var size = ScratchArea.xsave
    /// Where it lies in the target; nil: nowhere yet.
    var address: UInt64?
    /// Of the mapping that was made for it; nil: it lies on a stack.
    var mappedSize: UInt64?

    init() {
        ours = .allocate(byteCount: ScratchArea.capacity, alignment: 64)
        saved = .allocate(byteCount: ScratchArea.capacity, alignment: 64)
        ours.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit {
        ours.deallocate()
        saved.deallocate()
    }

    /// Where a part of it lies in the target.
    func address(of part: Int) -> UInt64 { (address ?? 0) &+ UInt64(part) }

    /// A part of what is put there.
    func bytes(from start: Int, count: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: ours[start..<(start + count)])
    }

    func store(_ words: [UInt32], at part: Int) {
        words.withUnsafeBytes { bytes(from: part, count: $0.count).copyMemory(from: $0) }
    }

    func prepareStep(_ step: Int, given: Int32) {
        bytes(from: step, count: Step.size).initializeMemory(as: UInt8.self, repeating: 0)
        ours.storeBytes(of: given, toByteOffset: step + Step.given, as: Int32.self)
        ours.storeBytes(of: UInt32(Step.valueSize), toByteOffset: step + Step.length, as: UInt32.self)
    }

    /// What a step has read; nil where one of its calls failed, or the value that was set did not stay.
    func outcome(ofStep step: Int, wanted: Int32?) -> Int32? {
        let value = ours.load(fromByteOffset: step + Step.value, as: Int32.self)
        let length = ours.load(fromByteOffset: step + Step.length, as: UInt32.self)
        return length == 4 && value == wanted ?? value ? value : nil
    }
}

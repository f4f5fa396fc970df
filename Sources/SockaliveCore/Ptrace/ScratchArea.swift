import Glibc
import SystemPackage

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

// Where the scratch area may lie: memory below a stack pointer is free only if it is stack.
extension HeldThread {
    func placeScratchArea() throws(Errno) {
        if let address = target.stackAddress(below: found, size: scratch.size), try reserve(address) { return }
        if let address = target.unusedStackAddress(besides: found, size: scratch.size), try reserve(address) {
            // Where it never got so deep, the kernel's zeros still lie.
            if scratch.saved[..<scratch.size].allSatisfy({ $0 == 0 }) { return }
            scratch.address = nil
        }
        try mapScratchArea()
    }

    /// Notes what lies there. False where it is not readable.
    private func reserve(_ address: UInt64) throws(Errno) -> Bool {
        do {
            try memory().read(address, into: UnsafeMutableRawBufferPointer(rebasing: scratch.saved[..<scratch.size]))
        } catch .badAddress {
            return false
        }
        scratch.address = address
        return true
    }

    /// A mapping made by a call that needs no memory. Killed during that call, or during the one that takes the
    /// mapping away, the target is lost: this does not count as crash-safe.
    private func mapScratchArea() throws(Errno) {
        let size = (UInt64(scratch.size) + 4095) & ~4095
        try tracee.setSignalMask(Self.allSignals)
        let result = try callWithoutRecovery(
            RemoteSyscall(
                .mmap, 0, size, UInt64(PROT_READ | PROT_WRITE), UInt64(MAP_PRIVATE | MAP_ANONYMOUS), .max, 0))
        scratch.address = try result.get()
        scratch.mappedSize = size
    }

    func unmapScratchArea() throws(Errno) {
        guard let address = scratch.address, let size = scratch.mappedSize, !isTampered else { return }
        _ = try callWithoutRecovery(RemoteSyscall(.munmap, address, size))
    }

    /// Nothing brings the thread back from such a call but this process. It waits for the memory lock, which other
    /// threads may hold for long: it is given more time than a call that comes back by itself.
    private func callWithoutRecovery(_ call: RemoteSyscall) throws(Errno) -> SyscallResult {
        let usual = tracee.timeout
        tracee.timeout = Self.memoryTimeout
        defer { tracee.timeout = usual }
        return try self.call(call, stack: found.stackPointer, array: nil)
    }

    private static let memoryTimeout = Duration.seconds(3)
}

extension RemoteTarget {
    /// glibc and musl put the thread's own block at the very end of the stack that they allocate.
    private static let maxThreadBlock: UInt64 = 8192
    private static let alignment: UInt64 = 64

    /// Below the thread's own stack pointer, if the memory there is certainly its own and large enough. Pure.
    func stackAddress(below registers: Registers, size: Int) -> UInt64? {
        let is32Bit = gadgets.is32Bit
        let top = registers.freeStack(is32Bit: is32Bit)
        let thread = registers.threadPointer(is32Bit: is32Bit)
        guard let stack = stacks.first(where: { $0.span.lowerBound < top && top <= $0.span.upperBound }) else {
            return nil
        }
        let isOwn = stack.isMain || (thread >= top && stack.span.upperBound &- thread <= Self.maxThreadBlock)
        guard isOwn, top - stack.span.lowerBound >= UInt64(size) + Self.alignment else { return nil }
        return (top - UInt64(size)) & ~(Self.alignment - 1)
    }

    /// In the lowest part of the main thread's stack, where that is the thread held and stands elsewhere, on a
    /// coroutine's stack: the kernel gives every program 128 KB to begin with. Pure.
    func unusedStackAddress(besides registers: Registers, size: Int) -> UInt64? {
        guard tid == holder.pid, let stack = stacks.first(where: \.isMain)?.span,
            !(stack.lowerBound...stack.upperBound).contains(registers.stackPointer),
            stack.upperBound - stack.lowerBound >= 2 * UInt64(size)
        else { return nil }
        return (stack.lowerBound &+ (Self.alignment - 1)) & ~(Self.alignment - 1)
    }
}

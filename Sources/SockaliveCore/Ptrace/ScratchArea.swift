import Glibc
import SystemPackage

/// Memory of the target that is used while a thread is held: our content, and the content found.
///
/// The stack grows downwards, so read the layout from the bottom. The `ret` of a call leads into `close`, and the `ret`
/// of that into `restore`.
final class ScratchArea {
    /// The data of a single call, at the very start: its words, a length, a value.
    static let words = 0
    static let length = words + wordsSize
    static let value = length + 4
    static let valueSize = 256
    static let slotSize = value + valueSize

    /// The data of a setsockopt and the getsockopt after it, for one of several options.
    static func step(_ index: Int) -> Int { slotSize + index * Step.size }
    static let maxSteps = 5

    /// Offsets in a step.
    enum Step {
        static let wordsOfSet = 0
        static let wordsOfGet = wordsOfSet + wordsSize
        static let given = wordsOfGet + wordsSize
        static let length = given + 4
        static let value = length + 4
        /// Larger than an integer: a length of 4 afterwards proves that the getsockopt succeeded.
        static let valueSize = 8
        static let size = value + valueSize
    }

    /// Frames of a chain. Each makes the next call.
    static func chain(_ index: Int) -> Int { step(maxSteps) + index * SignalFrame.room }
    static let maxCalls = 2 * maxSteps

    /// The frame that runs close(duplicate).
    static let close = chain(maxCalls)
    /// The frame that restores the registers found.
    static let restore = close + SignalFrame.room
    static let xsave = (restore + SignalFrame.room + 63) & ~63
    private static let capacity = xsave + XSaveArea.capacity
    private static let wordsSize = RemoteSyscall.wordCount * MemoryLayout<UInt32>.size

    /// Our content.
    let ours: UnsafeMutableRawBufferPointer
    /// The content found.
    let saved: UnsafeMutableRawBufferPointer
    /// The used size.
    var size = ScratchArea.xsave
    /// The address in the target; nil: no place chosen yet.
    var address: UInt64?
    /// The size of our own mapping; nil: the area is on a stack.
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

    /// The address of a part in the target.
    func address(of part: Int) -> UInt64 { (address ?? 0) &+ UInt64(part) }

    /// A part of our content.
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

    /// The value that a step has read; nil if one of its calls failed, or if the set value did not stay.
    func outcome(ofStep step: Int, wanted: Int32?) -> Int32? {
        let value = ours.load(fromByteOffset: step + Step.value, as: Int32.self)
        let length = ours.load(fromByteOffset: step + Step.length, as: UInt32.self)
        return length == 4 && value == wanted ?? value ? value : nil
    }
}

// The place of the scratch area. Memory below a stack pointer is free only if it belongs to a stack.
extension HeldThread {
    func placeScratchArea() throws(Errno) {
        if let address = target.stackAddress(below: found, size: scratch.size), try reserve(address) { return }
        if let address = target.unusedStackAddress(besides: found, size: scratch.size), try reserve(address) {
            // Zeros prove that the stack was never this deep.
            if scratch.saved[..<scratch.size].allSatisfy({ $0 == 0 }) { return }
            scratch.address = nil
        }
        try mapScratchArea()
    }

    /// Chooses `address` and saves its content; false if the memory is not readable.
    private func reserve(_ address: UInt64) throws(Errno) -> Bool {
        do {
            try memory().read(address, into: UnsafeMutableRawBufferPointer(rebasing: scratch.saved[..<scratch.size]))
        } catch .badAddress {
            return false
        }
        scratch.address = address
        return true
    }

    /// Makes a mapping by a call that needs no memory. If this process is killed during that call, or during the
    /// munmap, the target is lost. So this does not count as crash-safe.
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

    /// Only this process can bring the thread back from such a call. The call waits for the memory lock, which other
    /// threads may hold for long, so its timeout is longer than that of other calls.
    private func callWithoutRecovery(_ call: RemoteSyscall) throws(Errno) -> SyscallResult {
        let usual = tracee.timeout
        tracee.timeout = Self.memoryTimeout
        defer { tracee.timeout = usual }
        return try self.call(call, stack: found.stackPointer, array: nil)
    }

    private static let memoryTimeout = Duration.seconds(3)
}

extension RemoteTarget {
    /// glibc and musl put the thread's control block at the very end of the stack that they allocate.
    private static let maxThreadBlock: UInt64 = 8192
    private static let alignment: UInt64 = 64

    /// A place below the thread's own stack pointer, if that memory certainly belongs to the stack and is large enough.
    /// Pure.
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

    /// A place in the lowest part of the main thread's stack, if the main thread is held and currently uses another
    /// stack, such as a coroutine's. The kernel gives every program an initial stack of 128 KB. Pure.
    func unusedStackAddress(besides registers: Registers, size: Int) -> UInt64? {
        guard tid == holder.pid, let stack = stacks.first(where: \.isMain)?.span,
            !(stack.lowerBound...stack.upperBound).contains(registers.stackPointer),
            stack.upperBound - stack.lowerBound >= 2 * UInt64(size)
        else { return nil }
        return (stack.lowerBound &+ (Self.alignment - 1)) & ~(Self.alignment - 1)
    }
}

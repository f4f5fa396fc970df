import Glibc
import SystemPackage

extension HeldThread {
    /// Makes one system call with the recovery frames in place, and returns its result.
    ///
    /// - Throws: if the call did not complete.
    func call(_ call: RemoteSyscall) throws(Errno) -> SyscallResult {
        // With a suspended filter, all arguments that it would check must be in registers. A kernel that can suspend
        // filters has the direct socket calls: both came with Linux 4.3.
        let array = isFilterSuspended ? nil : scratch.address(of: ScratchArea.words)
        return try self.call(call, stack: scratch.address(of: ScratchArea.close), array: array)
    }

    /// - Parameters:
    ///   - stack: the stack pointer during the call.
    ///   - array: the address of the 32-bit arguments, for socketcall(2).
    func call(_ call: RemoteSyscall, stack: UInt64, array: UInt64?) throws(Errno) -> SyscallResult {
        guard !isTampered else { throw .canceled }
        let registers = registers(for: call, stack: stack, array: array)
        do {
            try tracee.set(registers)
            try runToSystemCall()
            if tracee.isGuarded { try confirmEntry(of: registers) }
            try runToSystemCall()
        } catch {
            try recover(from: error)
        }
        return try tracee.registers().result(is32Bit: target.gadgets.is32Bit)
    }

    func runToSystemCall() throws(Errno) {
        try tracee.resume(.toSystemCall)
        try tracee.run(.toSystemCall, to: .systemCall)
    }

    /// Checks at the entry of a system call that it is the requested one. Other threads can write to the thread's code
    /// and stack. The number and the arguments are in registers now, which no other thread can change.
    func confirmEntry(of wanted: Registers) throws(Errno) {
        if try isConfirmed(wanted) { return }
        try tracee.skipCall()
        try endForTampering()
    }

    /// Registers do not tell which table the kernel uses: `int $0x80` and `syscall` are both two bytes long, and a
    /// 64-bit thread may use either.
    private func isConfirmed(_ wanted: Registers) throws(Errno) -> Bool {
        let is32Bit = target.gadgets.is32Bit
        guard try tracee.registers().isEntry(of: wanted, is32Bit: is32Bit) else { return false }
        let entry = wanted.entry(is32Bit: is32Bit)
        do {
            if let shown = try tracee.entry() { return shown == entry }
        } catch .invalidArgument {
            return false
        }
        // Before Linux 5.3 the table is checked only if a suspended filter would have checked the call.
        guard isFilterSuspended else { return true }
        return entry.isShown(by: target.procfs.text("\(target.holder.pid)/task/\(tracee.tid)/syscall") ?? [])
    }

    /// After a timeout (the thread may be frozen), brings the thread to a stop from which it can be detached.
    func recover(from error: Errno) throws(Errno) -> Never {
        if error == .timedOut { try tracee.interrupt() }
        throw error
    }
}

/// getsockopt(2) or setsockopt(2) on the held thread's descriptor.
struct OptionCall {
    let isSet: Bool
    let level: Int32
    let name: Int32
}

extension HeldThread {
    /// - Parameters:
    ///   - value: input of setsockopt, output of getsockopt; ``ScratchArea/valueSize`` bytes at most.
    ///   - length: the value's length. After getsockopt, the number of bytes that the target's kernel wrote.
    /// - Returns: the result of the call.
    func make(
        _ option: OptionCall, _ value: UnsafeMutableRawBufferPointer, length: inout UInt32
    ) throws(Errno) -> SyscallResult {
        let call = remoteSyscall(option, value: ScratchArea.value, length: ScratchArea.length, size: length)
        let slot = scratch.bytes(from: 0, count: ScratchArea.slotSize)
        let valueBytes = UnsafeMutableRawBufferPointer(rebasing: slot[ScratchArea.value...].prefix(value.count))
        // The target must not see old content of the caller's memory.
        valueBytes.initializeMemory(as: UInt8.self, repeating: 0)
        if option.isSet { valueBytes.copyMemory(from: UnsafeRawBufferPointer(value)) }
        slot.storeBytes(of: length, toByteOffset: ScratchArea.length, as: UInt32.self)
        scratch.store(call.words, at: ScratchArea.words)
        try write(UnsafeRawBufferPointer(slot), to: scratch.address(of: 0))
        let result = try self.call(call)
        guard !option.isSet else { return result }
        try memory().read(scratch.address(of: 0), into: slot)
        length = min(length, slot.loadUnaligned(fromByteOffset: ScratchArea.length, as: UInt32.self))
        value.copyMemory(from: UnsafeRawBufferPointer(valueBytes))
        return result
    }

    /// - Parameters:
    ///   - value: the part of the scratch area for the value.
    ///   - length: the part for its length, which getsockopt(2) needs in memory.
    func remoteSyscall(_ option: OptionCall, value: Int, length: Int, size: UInt32) -> RemoteSyscall {
        RemoteSyscall(
            option.isSet ? .setsockopt : .getsockopt, on: descriptor, UInt64(option.level), UInt64(option.name),
            scratch.address(of: value), option.isSet ? UInt64(size) : scratch.address(of: length))
    }
}

// A chain makes several calls with one stop. Each call returns into the frame that makes the next one. At the end the
// thread sends itself a signal, which stops it. If this process is killed meanwhile, the thread runs along the chain
// into the recovery frames. Without a chain the thread is held two to five times as long (Docs/Injection.md,
// "Measured").
extension HeldThread {
    /// Makes a setsockopt for each option to set, and a getsockopt after it.
    ///
    /// - Returns: the value read for each option; nil if the option must be retried alone, which gives its error.
    func chain(_ options: [OptionExchange]) throws(Errno) -> [Int32?] {
        guard mayChain, !options.isEmpty, options.count <= ScratchArea.maxSteps, let signal = harmlessSignal else {
            return [Int32?](repeating: nil, count: options.count)
        }
        let calls = options.indices.flatMap { chainedCalls(options[$0], step: ScratchArea.step($0)) }
        let first = writeChain(calls, endingWith: signal)
        let steps = scratch.bytes(
            from: ScratchArea.step(0), count: ScratchArea.chain(calls.count) - ScratchArea.step(0))
        try write(UnsafeRawBufferPointer(steps), to: scratch.address(of: ScratchArea.step(0)))
        try runChain(from: first, to: signal)
        let answers = scratch.bytes(from: ScratchArea.step(0), count: ScratchArea.chain(0) - ScratchArea.step(0))
        try memory().read(scratch.address(of: ScratchArea.step(0)), into: answers)
        return options.indices.map { scratch.outcome(ofStep: ScratchArea.step($0), wanted: options[$0].newValue) }
    }

    private struct ChainedCall {
        let call: RemoteSyscall
        /// The address of the 32-bit arguments.
        let words: UInt64
    }

    private func chainedCalls(_ option: OptionExchange, step: Int) -> [ChainedCall] {
        scratch.prepareStep(step, given: option.newValue ?? 0)
        return [true, false].filter { !$0 || option.newValue != nil }.map { isSet in
            let call = remoteSyscall(
                OptionCall(isSet: isSet, level: option.level, name: option.name),
                value: step + (isSet ? ScratchArea.Step.given : ScratchArea.Step.value),
                length: step + ScratchArea.Step.length, size: 4)
            let words = step + (isSet ? ScratchArea.Step.wordsOfSet : ScratchArea.Step.wordsOfGet)
            scratch.store(call.words, at: words)
            return ChainedCall(call: call, words: scratch.address(of: words))
        }
    }

    /// Writes the frames into our copy of the scratch area.
    ///
    /// - Returns: the registers of the first call.
    private func writeChain(_ calls: [ChainedCall], endingWith signal: Int32) -> Registers {
        let own = UInt64(UInt32(bitPattern: target.status.ownNumber ?? 0))
        let stop = RemoteSyscall(.tkill, own, UInt64(UInt32(bitPattern: signal)))
        for index in calls.indices.dropFirst() {
            frame(registers(for: calls[index], at: index), mask: Self.allSignals, at: ScratchArea.chain(index - 1))
        }
        let last = registers(for: stop, stack: scratch.address(of: ScratchArea.close), array: nil)
        frame(last, mask: Self.allSignals & ~(1 << UInt64(signal - 1)), at: ScratchArea.chain(calls.count - 1))
        return registers(for: calls[0], at: 0)
    }

    private func registers(for chained: ChainedCall, at index: Int) -> Registers {
        registers(for: chained.call, stack: scratch.address(of: ScratchArea.chain(index)), array: chained.words)
    }

    private func runChain(from first: Registers, to signal: Int32) throws(Errno) {
        do {
            try tracee.set(first)
            hasChained = true
            try tracee.resume(.toAnyStop)
            try tracee.run(.toAnyStop, to: .signal(signal))
        } catch {
            try recover(from: error)
        }
    }

    /// A signal that the target neither blocks nor handles, and whose default action is to ignore it. It stops a traced
    /// thread (sig_ignored), and has no effect if the tracer is gone.
    private var harmlessSignal: Int32? {
        let taken = target.status.handledSignals | mask
        return [SIGURG, SIGWINCH, SIGCHLD].first { taken >> UInt64($0 - 1) & 1 == 0 }
    }
}

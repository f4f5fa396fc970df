import SystemPackage

extension HeldThread {
    /// One system call with the recovery frames in place: what it returned.
    ///
    /// - Throws: why it did not come to its end.
    func call(_ call: RemoteSyscall) throws(Errno) -> SyscallResult {
        // Where a filter is suspended, all that it would look at stands in registers. Kernels that suspend filters
        // have the direct calls: both came with Linux 4.3.
        let array = isFilterSuspended ? nil : scratch.address(of: ScratchArea.words)
        return try self.call(call, stack: scratch.address(of: ScratchArea.close), array: array)
    }

    /// - Parameters:
    ///   - stack: the stack pointer during the call.
    ///   - array: where its first arguments lie as 32-bit numbers, for the kind that wants them so.
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

    private func runToSystemCall() throws(Errno) {
        try tracee.resume(.toSystemCall)
        try tracee.run(.toSystemCall, to: .systemCall)
    }

    /// The thread stands at the entry of a system call. Is it the one that was asked for? Its code and its stack lie
    /// in memory that others write. The number and the arguments are in registers by now, which nobody else reaches.
    private func confirmEntry(of wanted: Registers) throws(Errno) {
        if try isConfirmed(wanted) { return }
        try tracee.skipCall()
        try endForTampering()
    }

    /// The registers alone do not tell which table the kernel takes the number from: `int $0x80` and `syscall` are both
    /// two bytes long, and a 64-bit thread may use either.
    private func isConfirmed(_ wanted: Registers) throws(Errno) -> Bool {
        let is32Bit = target.gadgets.is32Bit
        guard try tracee.registers().isEntry(of: wanted, is32Bit: is32Bit) else { return false }
        let entry = wanted.entry(is32Bit: is32Bit)
        do {
            if let shown = try tracee.entry() { return shown == entry }
        } catch .invalidArgument {
            return false
        }
        // Before Linux 5.3 the other table matters only where a filter would have looked at the call.
        guard isFilterSuspended else { return true }
        return entry.isShown(by: target.procfs.text("\(target.holder.pid)/task/\(tracee.tid)/syscall") ?? [])
    }

    /// Frozen, perhaps: back to a stop from which it can be let go.
    func recover(from error: Errno) throws(Errno) -> Never {
        if error == .timedOut { try tracee.interrupt() }
        throw error
    }
}

/// getsockopt(2) or setsockopt(2) on the descriptor that is held.
struct OptionCall {
    let isSet: Bool
    let level: Int32
    let name: Int32
}

extension HeldThread {
    /// - Parameters:
    ///   - value: in for setsockopt, out for getsockopt; ``ScratchArea/valueSize`` bytes at most.
    ///   - length: of the value; out: how much of it the target's kernel filled.
    /// - Returns: what the call returned.
    func make(
        _ option: OptionCall, _ value: UnsafeMutableRawBufferPointer, length: inout UInt32
    ) throws(Errno) -> SyscallResult {
        let call = remoteSyscall(option, value: ScratchArea.value, length: ScratchArea.length, size: length)
        let slot = scratch.bytes(from: 0, count: ScratchArea.slotSize)
        let valueBytes = UnsafeMutableRawBufferPointer(rebasing: slot[ScratchArea.value...].prefix(value.count))
        // What the caller's memory holds by chance is not for the target to see.
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
    ///   - length: the part for its length, which getsockopt(2) wants in memory.
    func remoteSyscall(_ option: OptionCall, value: Int, length: Int, size: UInt32) -> RemoteSyscall {
        RemoteSyscall(
            option.isSet ? .setsockopt : .getsockopt, on: descriptor, UInt64(option.level), UInt64(option.name),
            scratch.address(of: value), option.isSet ? UInt64(size) : scratch.address(of: length))
    }
}

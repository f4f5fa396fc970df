import SystemPackage

// What the target holds while it is held (ScratchArea), so that it needs nobody to go on: should this process be killed
// at any instant, the kernel lets the target run, the call returns, its `ret` lands in rt_sigreturn, and the kernel
// itself loads what the thread had. That holds in system-call and event stops, and in the stop of an ignored signal;
// not in the one that a single step would make: a tracer's death there delivers the SIGTRAP.
extension HeldThread {
    static let allSignals = UInt64.max

    /// Writes the recovery frames into the scratch area, and points the thread at them. Until the last step the thread
    /// would run on as found.
    func installRecoveryFrames() throws(Errno) {
        let interrupted = try prepareRestart()
        try readXSaveArea()
        isChanged = true
        try placeScratchArea()
        let returns = xsave != nil
        mayChain =
            returns && !tracee.isGuarded && (target.status.ownNumber ?? 0) > 0 && !interrupted.usesRestartBlock
        isCrashSafe =
            returns && scratch.mappedSize == nil && !isFilterSuspended && !interrupted.isNumberUnknown
        frame(interrupted.manualRestart, mask: mask, at: ScratchArea.restore)
        frame(closing(-1), mask: Self.allSignals, at: ScratchArea.close)
        try write(UnsafeRawBufferPointer(scratch.bytes(from: 0, count: scratch.size)), to: scratch.address(of: 0))
        // Killed before this, the thread runs on as it was; after it, along the frames.
        try tracee.set(closing(-1))
        // A blocked signal stays pending, in its queue and its order, until the mask is put back.
        try tracee.setSignalMask(Self.allSignals)
    }

    /// Leaves in `found` what the kernel is to take up again.
    private func prepareRestart() throws(Errno) -> InterruptedSyscall {
        var code: [UInt8] = []
        if found.isInCall {
            code = try codeBefore(found.user.rip)
        } else if let sequence = try restartableSequence() {
            found.abort(sequence)  // system calls are not allowed in one
        }
        let interrupted = InterruptedSyscall(found: found, code: code)
        found = interrupted.kernelRestart
        return interrupted
    }

    /// Seven bytes, or the last two of them: at the start of a mapping there are no more. Each place is read once:
    /// what can be read now may not be readable a moment later.
    private func codeBefore(_ address: UInt64) throws(Errno) -> [UInt8] {
        for count in [7, 2] {
            if let bytes = try bytes(at: address &- UInt64(count), count: count) { return bytes }
        }
        return []
    }

    /// A thread interrupted in a restartable sequence (rseq(2)) goes on at the sequence's abort address. The kernel
    /// sees to that on the way back to the thread's code; on the way to ours it would see that the sequence is left,
    /// and forget it (rseq_ip_fixup).
    private func restartableSequence() throws(Errno) -> RestartableSequence? {
        // struct rseq: the section's address after two words; struct rseq_cs: version and flags, then three words.
        guard let area = try tracee.restartableSequenceArea(),
            let address = try memory().value(at: area &+ 8, like: UInt64(0)), address != 0,
            let words = try memory().value(at: address, like: (UInt64(0), UInt64(0), UInt64(0), UInt64(0)))
        else { return nil }
        return RestartableSequence(start: words.1, size: words.2, abort: words.3)
    }

    /// Where the target can return through a frame.
    private func readXSaveArea() throws(Errno) {
        if target.gadgets.isComplete && !target.status.hasShadowStack {
            let bytes = scratch.bytes(from: ScratchArea.xsave, count: XSaveArea.capacity)
            do {
                xsave = try XSaveArea(of: tracee, is32Bit: target.gadgets.is32Bit, into: bytes)
            } catch {
                // This processor or kernel has no such area, or a larger one: the plain way serves.
                if tracee.state != .same { throw error }
            }
        }
        scratch.size = ScratchArea.xsave + (xsave?.span.upperBound ?? 0)
    }

    /// Makes the close frame close this descriptor.
    func closeAtTheEnd(_ descriptor: Int32) throws(Errno) {
        frame(closing(descriptor), mask: Self.allSignals, at: ScratchArea.close)
        let bytes = scratch.bytes(from: ScratchArea.close, count: SignalFrame.room)
        try write(UnsafeRawBufferPointer(bytes), to: scratch.address(of: ScratchArea.close))
    }

    /// The registers of a call of close that returns into the frame that restores.
    private func closing(_ descriptor: Int32) -> Registers {
        registers(
            for: RemoteSyscall(.close, on: descriptor), stack: scratch.address(of: ScratchArea.restore), array: nil)
    }

    /// A frame in our copy of the scratch area.
    func frame(_ registers: Registers, mask: UInt64, at part: Int) {
        let frame = SignalFrame(
            registers: registers, mask: mask,
            xsave: scratch.address(of: ScratchArea.xsave + (xsave?.span.lowerBound ?? 0)))
        frame.write(to: scratch.bytes(from: part, count: SignalFrame.room), for: target.gadgets)
    }

    func registers(for call: RemoteSyscall, stack: UInt64, array: UInt64?) -> Registers {
        var registers = found
        registers.prepare(
            call, at: target.gadgets.call?.address ?? 0, is32Bit: target.gadgets.is32Bit, stack: stack, array: array)
        return registers
    }

    /// Back to what was found. Where a step fails, the recovery frames or the kernel's own restart remain.
    func restoreThread() throws(Errno) {
        var failure: Errno?
        func attempt(_ step: () throws(Errno) -> Void) {
            do throws(Errno) { try step() } catch { failure = failure ?? error }
        }
        attempt(unmapScratchArea)
        // Linux 6.18 leads a thread there as well that is let go at the exit of a call (__ptrace_unlink wakes it as if
        // by a signal), but not one at an entry; no manual promises either.
        if !tracee.isInSignalHandling { attempt(tracee.interrupt) }
        attempt(restoreVectorRegisters)
        attempt { () throws(Errno) in try tracee.setSignalMask(mask) }
        // Until here the recovery frames serve; from here on the kernel itself takes the interrupted call up again.
        attempt { () throws(Errno) in try tracee.set(found) }
        attempt(restoreMemory)
        if let failure { throw failure }
    }

    private func restoreVectorRegisters() throws(Errno) {
        // rt_sigreturn has loaded them already; the kernel's own way is the surer one.
        guard hasChained else { return }
        try xsave?.restore(to: tracee, from: scratch.bytes(from: ScratchArea.xsave, count: XSaveArea.capacity))
    }

    private func restoreMemory() throws(Errno) {
        guard let address = scratch.address, scratch.mappedSize == nil else { return }
        do {
            try write(UnsafeRawBufferPointer(rebasing: scratch.saved[..<scratch.size]), to: address)
        } catch .badAddress {
            // The target has taken its stack away meanwhile: nobody's bytes are missing.
        }
    }
}

import CSockalive
import Glibc
import SystemPackage

// The recovery frames (ScratchArea). They let the target continue without this process, if that is killed at any time:
// the kernel lets the target run, the call returns, its `ret` leads to rt_sigreturn, and the kernel restores the
// thread's own state. This is true in system-call stops, event stops, and the stop of an ignored signal. It is not true
// in a single-step stop: there the tracer's death delivers the SIGTRAP.
extension HeldThread {
    static let allSignals = UInt64.max

    /// Writes the recovery frames into the scratch area, and sets the thread's registers to them. Until the last step
    /// the thread would run on as found.
    func installRecoveryFrames() throws(Errno) {
        // System calls are not allowed in a sequence.
        if !found.isInCall, let sequence = try restartableSequence() {
            found.abort(sequence)
            interrupted = InterruptedSyscall(found: found, code: [])
        }
        try readXSaveArea()
        if masking == .byFrame {
            // rt_sigreturn drops the restart block.
            if interrupted.usesRestartBlock {
                guard let restart = interrupted.kernelRestartFromStart else { throw .notSupported }
                found = restart
            }
            guard xsave != nil else { throw .notSupported }
        }
        isChanged = true
        WorkerProgress.hold(isUnsafe: true)
        try placeScratchArea()
        let returns = xsave != nil
        mayChain =
            returns && !tracee.isGuarded && (target.status.ownNumber ?? 0) > 0 && !interrupted.usesRestartBlock
        isCrashSafe =
            returns && scratch.mappedSize == nil && !isFilterSuspended && !interrupted.isNumberUnknown
        frame(interrupted.manualRestart, mask: mask, at: ScratchArea.restore)
        frame(closing(-1), mask: Self.allSignals, at: ScratchArea.close)
        try write(UnsafeRawBufferPointer(scratch.bytes(from: 0, count: scratch.size)), to: scratch.address(of: 0))
        // If this process dies before this line, the thread runs on as found; after it, along the frames.
        try tracee.set(closing(-1))
        // A blocked signal stays pending, in its queue and order, until the mask is restored.
        try blockSignals()
        WorkerProgress.hold(isUnsafe: !isCrashSafe)
    }

    /// A thread that is interrupted in a restartable sequence (rseq(2)) continues at the sequence's abort address. The
    /// kernel sets this on its way back to the thread's code. On its way to a gadget it would notice that the thread
    /// has left the sequence, and would clear it (rseq_ip_fixup).
    private func restartableSequence() throws(Errno) -> RestartableSequence? {
        // struct rseq: two words before the section's address. struct rseq_cs: version and flags, then three words.
        guard case .at(let area) = try tracee.rseqArea(),
            let address = try memory().value(at: area &+ 8, like: UInt64(0)), address != 0,
            let words = try memory().value(at: address, like: (UInt64(0), UInt64(0), UInt64(0), UInt64(0)))
        else { return nil }
        return RestartableSequence(start: words.1, size: words.2, abort: words.3)
    }

    /// Reads the XSAVE area if the target can return through a frame.
    private func readXSaveArea() throws(Errno) {
        if target.gadgets.isComplete && !target.status.hasShadowStack {
            let bytes = scratch.bytes(from: ScratchArea.xsave, count: XSaveArea.capacity)
            do {
                xsave = try XSaveArea(of: tracee, is32Bit: target.gadgets.is32Bit, into: bytes)
            } catch {
                // This processor or kernel has no XSAVE area, or a larger one: continue without frames.
                if tracee.state != .same { throw error }
            }
        }
        scratch.size = ScratchArea.xsave + (xsave?.span.upperBound ?? 0)
    }

    /// Writes the close frame into the target.
    func writeCloseFrame(_ registers: Registers, mask: UInt64) throws(Errno) {
        frame(registers, mask: mask, at: ScratchArea.close)
        let bytes = scratch.bytes(from: ScratchArea.close, count: SignalFrame.room)
        try write(UnsafeRawBufferPointer(bytes), to: scratch.address(of: ScratchArea.close))
    }

    /// The registers of a close call that returns into the restore frame.
    func closing(_ descriptor: Int32) -> Registers {
        registers(
            for: RemoteSyscall(.close, on: descriptor), stack: scratch.address(of: ScratchArea.restore), array: nil)
    }

    /// Writes a frame into our copy of the scratch area.
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

    /// Restores the state found. If a step fails, the recovery frames or the kernel's own restart do the rest.
    func restoreThread() throws(Errno) {
        var failure: Errno?
        func attempt(_ step: () throws(Errno) -> Void) {
            do throws(Errno) { try step() } catch { failure = failure ?? error }
        }
        attempt(unmapScratchArea)
        attempt(unblockSignalsByFrame)
        // The frames still restore the mask, and with it everything else.
        if failure != nil && masking == .blockedByFrame { throw failure ?? .ioError }
        // Linux 6.18 also leads a thread to get_signal that is detached at the exit of a call (__ptrace_unlink wakes it
        // as if by a signal), but not one at an entry. No manual guarantees either.
        if !tracee.isInSignalHandling { attempt(tracee.interrupt) }
        attempt(restoreVectorRegisters)
        if masking != .byFrame { attempt { () throws(Errno) in try tracee.setSignalMask(mask) } }
        // Up to here the recovery frames restore the thread. From here on the kernel itself restarts the interrupted
        // call.
        attempt { () throws(Errno) in try tracee.set(found) }
        attempt(restoreMemory)
        if let failure { throw failure }
    }

    private func restoreVectorRegisters() throws(Errno) {
        // Only a chain changes them. rt_sigreturn has restored them; ptrace does it again, which is more reliable.
        guard hasChained else { return }
        try xsave?.restore(to: tracee, from: scratch.bytes(from: ScratchArea.xsave, count: XSaveArea.capacity))
    }

    private func restoreMemory() throws(Errno) {
        guard let address = scratch.address, scratch.mappedSize == nil else { return }
        do {
            try write(UnsafeRawBufferPointer(rebasing: scratch.saved[..<scratch.size]), to: address)
        } catch .badAddress {
            // The target has unmapped its stack meanwhile, so there is nothing to restore.
        }
    }
}

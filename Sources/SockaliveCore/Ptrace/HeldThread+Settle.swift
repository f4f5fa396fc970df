import CSockalive
import Glibc
import SystemPackage

// What has to be known and done first of all with a thread that has stopped, on every kernel.
extension HeldThread {
    /// How the thread's signal mask is changed.
    enum Masking {
        /// PTRACE_SETSIGMASK, Linux 3.11.
        case byRequest
        /// The same, but the kernel replaces the mask at the thread's next return to its own code
        /// (restore_saved_sigmask, before Linux 5.1): it is set once more then.
        case byRequestTwice
        /// rt_sigreturn sets it, from a frame.
        case byFrame
        /// The same; and all signals are blocked now.
        case blockedByFrame
    }

    /// The thread's own code may run for so long until it makes a call.
    private static let callTimeout = Duration.milliseconds(250)

    /// Brings the thread to a stop from which it can be led to other code and back, and makes sure that the stop itself
    /// has no effect: also if nothing else is done, or this process is killed, the interrupted call goes on.
    func settle() throws(Errno) {
        try lookAtCall()
        if !found.isInCall, RestartableSequence.mayBeHidden, case .hidden = try tracee.rseqArea() {
            reason = .userCode
            try stopAtOwnCall()
            reason = .stop
            try tracee.interrupt()
            try lookAtCall()
        }
        reason = .prepare
        try readMask()
    }

    /// Reads the registers and the interrupted call. A call that returns EINTR only because it was stopped is repeated:
    /// the kernel gets the same code as for other calls.
    private func lookAtCall() throws(Errno) {
        // By number: the request after it proves that the thread is the same. A failure is reported by ``inspect()``.
        openMemory = nil
        do throws(Errno) {
            openMemory = try TargetMemory(procfs: target.procfs, thread: path, isWritten: true)
        } catch {}
        found = try tracee.registers()
        interrupted = InterruptedSyscall(
            found: found, code: found.isInCall ? try codeBefore(found.instructionPointer) : [])
        let restart = interrupted.kernelRestart
        if restart.user.rax != found.user.rax || restart.user.orig_rax != found.user.orig_rax {
            try tracee.set(restart)
        }
        found = restart
    }

    /// The seven bytes before an address, or the last two of them at the start of a mapping. Each place is read only
    /// once, because it may become unreadable a moment later.
    private func codeBefore(_ address: UInt64) throws(Errno) -> [UInt8] {
        for count in [7, 2] {
            do throws(Errno) {
                if let bytes = try bytes(at: address &- UInt64(count), count: count) { return bytes }
            } catch {
                if tracee.state != .same { throw error }
                // `/proc` does not give the memory. ptrace(2) does.
                guard let word = try tracee.peek(at: address &- 8) else { continue }
                return withUnsafeBytes(of: word) { Array($0.suffix(7)) }
            }
        }
        return []
    }

    /// - Throws: `timedOut` if the thread makes no call; `resourceBusy` if its process is stopped.
    private func stopAtOwnCall() throws(Errno) {
        guard !tracee.isInGroupStop else { throw .resourceBusy }
        do {
            try tracee.runToOwnCall(within: Self.callTimeout)
        } catch {
            try recover(from: error)
        }
    }

    /// The mask of a thread, except while a call such as ppoll(2) has replaced it: that call puts it back at its end.
    /// Before Linux 5.1 ptrace(2) shows and sets the temporary one (kernel/ptrace.c; 5.1 looks at saved_sigmask). The
    /// thread's own mask is seen at the entry of the call, which is made again.
    private func readMask() throws(Errno) {
        let shown = try tracee.signalMask()
        masking = shown == nil ? .byFrame : .byRequest
        mask = try currentMask(shown)
        guard interrupted.replacesMask, shown == nil || KernelVersion.running.isBefore(5, 1) else { return }
        // `/proc` always shows the temporary mask. If ptrace(2) shows another one, the kernel has the change already.
        if let shown, try blockedSignals() != shown { return }
        try tracee.runToOwnCall(within: Self.callTimeout)
        let own = try currentMask(tracee.signalMask())
        try tracee.interrupt()
        try lookAtCall()
        // A signal's handler may have made another call.
        mask = interrupted.replacesMask ? own : try currentMask(tracee.signalMask())
        if masking == .byRequest && interrupted.replacesMask { masking = .byRequestTwice }
    }

    private func currentMask(_ shown: UInt64?) throws(Errno) -> UInt64 {
        if let shown { return shown }
        return try blockedSignals()
    }

    private func blockedSignals() throws(Errno) -> UInt64 {
        guard let blocked = try target.status(of: path).blockedSignals else { throw .ioError }
        return blocked
    }

    // MARK: - The mask

    /// Blocks every signal. The registers are those of the close frame's call, and the frames are written.
    ///
    /// - Throws: `interrupted` if a signal came before they were blocked. Then nothing was called in the target.
    func blockSignals() throws(Errno) {
        switch masking {
        case .byRequest: try tracee.setSignalMask(Self.allSignals)
        case .byRequestTwice:
            try tracee.setSignalMask(Self.allSignals)
            try untilSignal { () throws(Errno) in
                do throws(Errno) {
                    try runToSystemCall()
                    try tracee.setSignalMask(Self.allSignals)
                    if tracee.isGuarded { try confirmEntry(of: closing(-1)) }
                    try runToSystemCall()
                } catch { try recover(from: error) }
            }
            masking = .byRequest
        case .byFrame:
            try untilSignal { () throws(Errno) in
                _ = try call(.init(.rtSigreturn), stack: scratch.sigreturnStack(for: target.gadgets), array: nil)
            }
            masking = .blockedByFrame
        case .blockedByFrame: break
        }
    }

    private func untilSignal(_ body: () throws(Errno) -> Void) throws(Errno) {
        tracee.endsWaitAtSignal = true
        defer { tracee.endsWaitAtSignal = false }
        try body()
    }

    /// The counterpart of ``blockSignals()`` where no request sets the mask.
    func unblockSignalsByFrame() throws(Errno) {
        guard masking == .blockedByFrame, !isTampered else { return }
        try writeCloseFrame(closing(-1), mask: mask)
        _ = try call(.init(.rtSigreturn), stack: scratch.sigreturnStack(for: target.gadgets), array: nil)
        masking = .byFrame
    }
}

extension ScratchArea {
    /// The stack pointer with which rt_sigreturn loads the close frame: as if the `ret` before it had taken the return
    /// address.
    func sigreturnStack(for gadgets: SyscallGadgets) -> UInt64 {
        address(of: ScratchArea.close) + (gadgets.is32Bit ? 4 * (UInt64(gadgets.skipped) + 1) : 8)
    }
}

extension RestartableSequence {
    /// Whether a thread may be in a sequence that ptrace(2) does not show: rseq(2) came with Linux 4.18, the request
    /// with 5.13. A filter on this process may hide the call or the request.
    static let mayBeHidden: Bool = {
        guard sockalive_rseq_error() == ENOSYS else { return true }
        if KernelVersion.running.isBefore(4, 18) { return false }
        return (try? ProcFS().status("self"))?.seccomp != 0
    }()
}

import Glibc
import SystemPackage

/// One thread of a process, stopped and ready for remote calls on its descriptor. The other threads keep running.
///
///     attach    seize, interrupt, inspect; install the recovery frames; choose the descriptor
///     call      run the target's own system call instruction with the stack pointer at the recovery frames
///     detach    return to the kind of stop that attach made; restore everything; PTRACE_DETACH
///
/// Detach happens where attach happened: inside the kernel's signal handling (get_signal), with the registers found
/// there, the -ERESTART code of an interrupted call included. So the kernel itself restarts that call, or delivers a
/// signal that came meanwhile and returns EINTR if the call requires it. Only the kernel can decide this without a
/// race.
///
/// The owner of the target may be hostile. Between any two requests, its other threads, and processes that share its
/// memory, may change stacks, code, mappings and descriptors. The held thread itself is stopped, so its registers,
/// credentials, filter and program do not change until it is resumed. Docs/Injection.md lists the consequences.
///
/// It belongs to the thread of this process that attached. Deinit detaches.
final class HeldThread {
    let target: RemoteTarget
    let tracee: Tracee
    /// The memory of the program in the thread, opened while the thread is stopped.
    private var openMemory: TargetMemory?
    /// The registers that detach restores.
    private(set) var found = Registers()
    /// The thread's blocked signals.
    private(set) var mask: UInt64 = 0
    let scratch = ScratchArea()
    /// The target's XSAVE area in the scratch area; nil if it could not be read.
    private var xsave: XSaveArea?
    /// The thread's registers, mask or memory may differ from the state found.
    private var isChanged = false
    /// The thread may run several calls without a check between them.
    private(set) var mayChain = false
    /// A chain has run.
    var hasChained = false
    /// If this process is killed, the target recovers without it.
    private(set) var isCrashSafe = false
    /// A filter is suspended: the thread can make calls that the filter forbids.
    private(set) var isFilterSuspended = false
    /// The descriptor for the calls: the target's own, or a duplicate that no other thread knows.
    private(set) var descriptor: Int32
    /// The current step, which is the reason if it fails.
    private(set) var reason = RemoteSocket.Reason.seize
    private var isSeized = false

    /// Longer than any thread needs to reach its next stop, except in uninterruptible sleep.
    private static let timeout = Duration.seconds(1)

    init(_ target: RemoteTarget) {
        self.target = target
        tracee = Tracee(process: target.holder.pid, tid: target.tid, timeout: Self.timeout)
        descriptor = target.holder.fd
    }

    deinit {
        _ = try? detach()
    }

    /// - Throws: ``RemoteSocket/AttachError``. Then nothing is held.
    func attach() throws(RemoteSocket.AttachError) {
        _ = XSaveArea.featureEnds
        do {
            try prepare()
            reason = .call
        } catch {
            let attachError = attachError(for: error)
            // Report why attach failed. A failure of this detach is only its consequence.
            _ = try? detach()
            throw attachError
        }
    }

    /// The error to report for a failed request, by the present state of the thread.
    func attachError(for error: Errno) -> RemoteSocket.AttachError {
        switch tracee.state {
        case .replaced: RemoteSocket.AttachError(reason: .replaced, errno: .noSuchProcess)
        case .gone: RemoteSocket.AttachError(reason: .gone, errno: .noSuchProcess)
        case .same where reason == .call:
            RemoteSocket.AttachError(
                reason: error == .noSuchProcess ? .gone : .call, errno: error == .timedOut ? .timedOut : .ioError)
        case .same: RemoteSocket.AttachError(reason: error == .noSuchProcess ? .gone : reason, errno: error)
        }
    }

    private func prepare() throws(Errno) {
        // If this process dies before the recovery frames are installed, the kernel detaches and the thread runs on
        // unchanged.
        reason = .seize
        try seize()
        reason = .stop
        try tracee.interrupt()
        try inspect()
        try installRecoveryFrames()
        reason = .descriptor
        try chooseDescriptor()
    }

    private func seize() throws(Errno) {
        do {
            try tracee.seize()
            isSeized = true
        } catch .notPermitted {
            // A thread that has just died gives EPERM, too.
            guard try target.isSocket(target.holder.fd) else { throw .noSuchProcess }
            throw .notPermitted
        }
    }

    /// Checks everything that must be known of the stopped thread before it is changed.
    ///
    /// `/proc` looks the thread up by number. Afterwards ptrace(2) reads the registers: that proves that the stopped
    /// thread still exists, so the number was its own the whole time.
    private func inspect() throws(Errno) {
        reason = .seccomp
        let suspensionError = try suspensionError()
        let isSuspended = suspensionError == nil
        reason = .prepare
        let thread = "\(target.holder.pid)/task/\(tracee.tid)"
        openMemory = try TargetMemory(procfs: target.procfs, thread: thread, isWritten: true)
        let status = try target.status(of: thread)
        let isCovered = target.rights.areCovered(by: status, thread, target.procfs)
        found = try tracee.registers()
        reason = .seccomp
        guard isSuspended || (status.seccomp == 0 && !target.mayBeFilteredMeanwhile) else {
            throw suspensionError ?? .notPermitted
        }
        isFilterSuspended = isSuspended && status.seccomp != 0
        // A thread without a suspended filter, and without a right that its owner lacks, may run unguarded.
        tracee.isGuarded = isFilterSuspended || !isCovered
        guard found.isSupported(is32Bit: target.gadgets.is32Bit), try !tracee.dispatchesSystemCalls() else {
            reason = .unsupported
            throw .notSupported
        }
        reason = .prepare
        guard let call = target.gadgets.call, try isIntact(call), try isIntact(target.gadgets.sigreturn) else {
            throw .execFormatError
        }
        mask = try tracee.signalMask()
    }

    /// Always requested: a filter may have been added since the first check.
    ///
    /// - Returns: why filters cannot be suspended; nil if they are.
    private func suspensionError() throws(Errno) -> Errno? {
        do {
            try tracee.suspendSeccomp()
            return nil
        } catch .noSuchProcess {
            throw .noSuchProcess
        } catch {
            return error
        }
    }

    /// Whether the gadget's bytes are still in place.
    private func isIntact(_ gadget: SyscallGadgets.Gadget?) throws(Errno) -> Bool {
        guard let gadget else { return true }
        return try bytes(at: gadget.address, count: gadget.bytes.count) == gadget.bytes
    }

    /// Bytes of the target's memory; nil if they are not readable.
    func bytes(at address: UInt64, count: Int) throws(Errno) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        return try isReadable(address, into: &bytes) ? bytes : nil
    }

    private func isReadable(_ address: UInt64, into bytes: inout [UInt8]) throws(Errno) -> Bool {
        let memory = try memory()
        var failure: Errno?
        bytes.withUnsafeMutableBytes { bytes in
            do throws(Errno) { try memory.read(address, into: bytes) } catch { failure = error }
        }
        if failure == .badAddress { return false }
        if let failure { throw hidden(failure) }
        return true
    }

    /// The kernel has opened the memory, so only a filter or a sandbox refuses to read or write it.
    private func hidden(_ error: Errno) -> Errno {
        if reason == .prepare && (error.isPermission || error == .noFunction) { reason = .memory }
        return error
    }

    func memory() throws(Errno) -> TargetMemory {
        // After an execve, or after the end of the target, its memory is not accessed any more.
        guard let openMemory, tracee.state == .same else { throw .noSuchProcess }
        return openMemory
    }

    /// Writes to the thread's memory. If the file is read-only, ptrace(2) writes word by word, which takes 0.5 ms more.
    ///
    /// - Throws: `badAddress` if the memory is not mapped.
    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt64) throws(Errno) {
        let memory = try memory()
        if memory.isWritable {
            do throws(Errno) { return try memory.write(bytes, to: address) } catch { throw hidden(error) }
        }
        for offset in stride(from: 0, to: bytes.count, by: 8) {
            var word: UInt64 = 0
            let rest = bytes[offset..<min(offset + 8, bytes.count)]
            if rest.count < 8 { word = try memory.value(at: address &+ UInt64(offset), like: word) ?? 0 }
            withUnsafeMutableBytes(of: &word) { $0.copyBytes(from: rest) }
            try tracee.poke(word, at: address &+ UInt64(offset))
        }
    }

    /// Chooses the descriptor number for the calls. A held thread without siblings keeps its descriptors. Other threads
    /// may close the number, or open another file under it, between check and call. Then the socket is duplicated to a
    /// number that no other thread knows, and the duplicate is checked. The number is chosen in advance, so the
    /// recovery frames can close the duplicate from the moment it is open.
    private func chooseDescriptor() throws(Errno) {
        if !target.hasOneThread { try duplicateDescriptor() }
        guard try target.isSocket(descriptor) else { throw .staleNFSFileHandle }
    }

    private func duplicateDescriptor() throws(Errno) {
        let duplicate = RemoteSyscall(
            .fcntl, on: target.holder.fd, UInt64(F_DUPFD_CLOEXEC), UInt64(target.spareDescriptor))
        try closeAtTheEnd(target.spareDescriptor)
        do {
            descriptor = Int32(truncatingIfNeeded: try call(duplicate).get())
        } catch .badFileDescriptor {
            throw .staleNFSFileHandle
        }
        if descriptor != target.spareDescriptor { try closeAtTheEnd(descriptor) }
    }

    /// Another call came in place of ours. It was not made, and no more calls are made.
    func endForTampering() throws(Errno) -> Never {
        reason = .tampered
        throw .canceled
    }

    var isTampered: Bool { reason == .tampered }

    /// Restores the state found, and detaches. A thread that never stopped is detached when the thread that seized it
    /// ends.
    ///
    /// - Returns: how long the thread was stopped.
    /// - Throws: if not everything could be restored. Then the recovery frames, or the kernel's own restart, do the
    ///   rest.
    @discardableResult
    func detach() throws(Errno) -> Duration {
        guard isSeized else { return .zero }
        isSeized = false
        defer { WorkerProgress.hold(isUnsafe: false) }
        var failure: Errno?
        if tracee.state == .same {
            do throws(Errno) { try putBack() } catch { failure = error }
        }
        // The mask survives execve(2), and the new program must not start with every signal blocked. Nothing else is
        // set.
        if tracee.state == .replaced && isChanged {
            do throws(Errno) { try tracee.setSignalMask(mask) } catch { failure = error }
        }
        let pauseDuration = tracee.pauseDuration
        // This fails if the thread is not stopped, or gone. Then the end of the thread that seized it detaches.
        do throws(Errno) { try tracee.detach() } catch { failure = failure ?? error }
        if let failure { throw failure }
        return pauseDuration
    }

    /// Tries each step, even if an earlier one failed: a stopped thread must not be detached with the registers of a
    /// remote call.
    private func putBack() throws(Errno) {
        var failure: Errno?
        if descriptor != target.holder.fd && !isTampered {
            do throws(Errno) { _ = try call(RemoteSyscall(.close, on: descriptor)) } catch { failure = error }
        }
        if isChanged { try restoreThread() }
        if let failure { throw failure }
    }
}

// The recovery frames (ScratchArea). They let the target continue without this process, if that is killed at any time:
// the kernel lets the target run, the call returns, its `ret` leads to rt_sigreturn, and the kernel restores the
// thread's own state. This is true in system-call stops, event stops, and the stop of an ignored signal. It is not true
// in a single-step stop: there the tracer's death delivers the SIGTRAP.
extension HeldThread {
    static let allSignals = UInt64.max

    /// Writes the recovery frames into the scratch area, and sets the thread's registers to them. Until the last step
    /// the thread would run on as found.
    private func installRecoveryFrames() throws(Errno) {
        let interrupted = try prepareRestart()
        try readXSaveArea()
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
        try tracee.setSignalMask(Self.allSignals)
        WorkerProgress.hold(isUnsafe: !isCrashSafe)
    }

    /// Sets `found` to the registers with which the kernel restarts the call.
    private func prepareRestart() throws(Errno) -> InterruptedSyscall {
        var code: [UInt8] = []
        if found.isInCall {
            code = try codeBefore(found.instructionPointer)
        } else if let sequence = try restartableSequence() {
            found.abort(sequence)  // system calls are not allowed in one
        }
        let interrupted = InterruptedSyscall(found: found, code: code)
        found = interrupted.kernelRestart
        return interrupted
    }

    /// The seven bytes before an address, or the last two of them at the start of a mapping. Each place is read only
    /// once, because it may become unreadable a moment later.
    private func codeBefore(_ address: UInt64) throws(Errno) -> [UInt8] {
        for count in [7, 2] {
            if let bytes = try bytes(at: address &- UInt64(count), count: count) { return bytes }
        }
        return []
    }

    /// A thread that is interrupted in a restartable sequence (rseq(2)) continues at the sequence's abort address. The
    /// kernel sets this on its way back to the thread's code. On its way to a gadget it would notice that the thread
    /// has left the sequence, and would clear it (rseq_ip_fixup).
    private func restartableSequence() throws(Errno) -> RestartableSequence? {
        // struct rseq: two words before the section's address. struct rseq_cs: version and flags, then three words.
        guard let area = try tracee.restartableSequenceArea(),
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

    /// Makes the close frame close this descriptor.
    private func closeAtTheEnd(_ descriptor: Int32) throws(Errno) {
        frame(closing(descriptor), mask: Self.allSignals, at: ScratchArea.close)
        let bytes = scratch.bytes(from: ScratchArea.close, count: SignalFrame.room)
        try write(UnsafeRawBufferPointer(bytes), to: scratch.address(of: ScratchArea.close))
    }

    /// The registers of a close call that returns into the restore frame.
    private func closing(_ descriptor: Int32) -> Registers {
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
    private func restoreThread() throws(Errno) {
        var failure: Errno?
        func attempt(_ step: () throws(Errno) -> Void) {
            do throws(Errno) { try step() } catch { failure = failure ?? error }
        }
        attempt(unmapScratchArea)
        // Linux 6.18 also leads a thread to get_signal that is detached at the exit of a call (__ptrace_unlink wakes it
        // as if by a signal), but not one at an entry. No manual guarantees either.
        if !tracee.isInSignalHandling { attempt(tracee.interrupt) }
        attempt(restoreVectorRegisters)
        attempt { () throws(Errno) in try tracee.setSignalMask(mask) }
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

import Glibc
import SystemPackage

/// One thread of a process, held still and ready for remote calls on its descriptor. The other threads run on.
///
///     attach    seize, interrupt, inspect; install the recovery frames; choose the descriptor
///     call      runs the target's own system call instruction, its stack pointer at the recovery frames
///     detach    back to the kind of stop that attach made; restore everything; PTRACE_DETACH
///
/// Letting go ends where holding began, inside the kernel's signal handling (get_signal), with the registers as they
/// were found there, an interrupted call's -ERESTART code included. So the kernel itself takes that call up again, or
/// delivers a signal that came meanwhile and answers EINTR where that is due. Nobody else can decide it without a
/// race.
///
/// Whoever owns the target is an enemy: between any two requests its other threads, and processes that share its
/// memory, rewrite stacks, code, mappings and descriptors. The held thread itself stands still, so its registers,
/// credentials, filter and program stay what they are until it is resumed. What follows from that stands in
/// Docs/Injection.md, line by line.
///
/// It belongs to the thread of this process that held it, and lets go at the latest when it goes away.
final class HeldThread {
    let target: RemoteTarget
    let tracee: Tracee
    /// Of the program that runs in the thread, opened while it stands still.
    private var openMemory: TargetMemory?
    /// The registers as detach puts them back.
    private(set) var found = Registers()
    /// The thread's blocked signals.
    private(set) var mask: UInt64 = 0
    let scratch = ScratchArea()
    /// The target's XSAVE area lies in the scratch area; nil: it could not be read.
    private var xsave: XSaveArea?
    /// From now on the thread's registers, mask or memory may differ from what was found.
    private var isChanged = false
    /// The thread may run along several calls without being looked at.
    private(set) var mayChain = false
    /// A chain has run.
    var hasChained = false
    /// The target recovers by itself should this process be killed.
    private(set) var isCrashSafe = false
    /// A filter is suspended: the thread may make calls that it is not allowed to make.
    private(set) var isFilterSuspended = false
    /// The number to call on: the target's own, or a duplicate that no other thread knows.
    private(set) var descriptor: Int32
    /// The step that failed.
    private(set) var reason = RemoteSocket.Reason.seize
    private var isSeized = false

    /// Longer than any thread takes to reach its next stop, unless it sleeps uninterruptibly.
    private static let timeout = Duration.seconds(1)

    init(_ target: RemoteTarget) {
        self.target = target
        tracee = Tracee(process: target.holder.pid, tid: target.tid, timeout: Self.timeout)
        descriptor = target.holder.fd
    }

    deinit {
        _ = try? detach()
    }

    /// - Throws: ``RemoteSocket/AttachError``; then nothing is held.
    func attach() throws(RemoteSocket.AttachError) {
        _ = XSaveArea.featureEnds
        do {
            try prepare()
            reason = .call
        } catch {
            let attachError = attachError(for: error)
            // Why it could not be held is what the caller asks; that it could not be put back either, what follows.
            _ = try? detach()
            throw attachError
        }
    }

    /// What an error of a request means by now.
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
        // Killed from here on, before the recovery frames: the kernel detaches, and the thread runs on as it was.
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
            // What has just died is refused like this, too.
            guard try target.isSocket(target.holder.fd) else { throw .noSuchProcess }
            throw .notPermitted
        }
    }

    /// What must be known of the stopped thread before anything is changed.
    ///
    /// `/proc` is asked by number. The thread's registers, read afterwards by ptrace(2), show that the thread which
    /// stopped stands there still, so the number was its own all the time.
    private func inspect() throws(Errno) {
        reason = .seccomp
        let isSuspended = try suspendsSeccomp()
        reason = .prepare
        let thread = "\(target.holder.pid)/task/\(tracee.tid)"
        openMemory = try TargetMemory(procfs: target.procfs, thread: thread, isWritten: true)
        let status = try target.status(of: thread)
        let isCovered = target.rights.areCovered(by: status, thread, target.procfs)
        found = try tracee.registers()
        reason = .seccomp
        guard isSuspended || (status.seccomp == 0 && !target.mayBeFilteredMeanwhile) else { throw .notPermitted }
        isFilterSuspended = isSuspended && status.seccomp != 0
        // Without a filter that is suspended, and with no right that its owner has not, it may run as it likes.
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

    /// Asked for in any case: a filter may have come since the first look.
    private func suspendsSeccomp() throws(Errno) -> Bool {
        do {
            try tracee.suspendSeccomp()
            return true
        } catch .noSuchProcess {
            throw .noSuchProcess
        } catch {
            return false
        }
    }

    /// Do the bytes that were found still stand there?
    private func isIntact(_ gadget: SyscallGadgets.Gadget?) throws(Errno) -> Bool {
        guard let gadget else { return true }
        return try bytes(at: gadget.address, count: gadget.bytes.count) == gadget.bytes
    }

    /// Of the target's memory; nil where it is not readable.
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
        if let failure { throw failure }
        return true
    }

    func memory() throws(Errno) -> TargetMemory {
        // Once its program is another one, or it is gone, nothing of it is read or written any more.
        guard let openMemory, tracee.state == .same else { throw .noSuchProcess }
        return openMemory
    }

    /// Into the thread's memory. Word by word through ptrace(2) where the file may only be read: some 0.5 ms more.
    ///
    /// - Throws: `badAddress` where it is not mapped.
    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt64) throws(Errno) {
        let memory = try memory()
        if memory.isWritable { return try memory.write(bytes, to: address) }
        for offset in stride(from: 0, to: bytes.count, by: 8) {
            var word: UInt64 = 0
            let rest = bytes[offset..<min(offset + 8, bytes.count)]
            if rest.count < 8 { word = try memory.value(at: address &+ UInt64(offset), like: word) ?? 0 }
            withUnsafeMutableBytes(of: &word) { $0.copyBytes(from: rest) }
            try tracee.poke(word, at: address &+ UInt64(offset))
        }
    }

    /// Which number to call on. Alone, a held thread keeps its descriptors. Among others it does not: they may close
    /// the number, or open another file under it, between the look and the call. So there the socket gets a second
    /// number, which nobody knows, and that one is looked at. It was chosen before, so that the recovery frames can
    /// close it from the moment on when it is open.
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

    /// A call that was not ours came in its place: it was not made, and nothing more is called.
    func endForTampering() throws(Errno) -> Never {
        reason = .tampered
        throw .canceled
    }

    var isTampered: Bool { reason == .tampered }

    /// Back to what was found, and let go. A thread that never stopped is let go when the one that seized it ends.
    ///
    /// - Returns: for how long it stood still.
    /// - Throws: where it could not all be put back. The recovery frames, or the kernel's own restart, remain.
    @discardableResult
    func detach() throws(Errno) -> Duration {
        guard isSeized else { return .zero }
        isSeized = false
        var failure: Errno?
        if tracee.state == .same {
            do throws(Errno) { try putBack() } catch { failure = error }
        }
        // The mask outlives execve(2): the new program must not find every signal blocked. Nothing else is set in it.
        if tracee.state == .replaced && isChanged {
            do throws(Errno) { try tracee.setSignalMask(mask) } catch { failure = error }
        }
        let pauseDuration = tracee.pauseDuration
        // Not stopped, or gone: then the end of the thread that seized it detaches it.
        do throws(Errno) { try tracee.detach() } catch { failure = failure ?? error }
        if let failure { throw failure }
        return pauseDuration
    }

    /// Each step is tried, whatever became of the one before: a thread that stands still is never let go with the
    /// registers of a remote call.
    private func putBack() throws(Errno) {
        var failure: Errno?
        if descriptor != target.holder.fd && !isTampered {
            do throws(Errno) { _ = try call(RemoteSyscall(.close, on: descriptor)) } catch { failure = error }
        }
        if isChanged { try restoreThread() }
        if let failure { throw failure }
    }
}

// What the target holds while it is held (ScratchArea), so that it needs nobody to go on: should this process be killed
// at any instant, the kernel lets the target run, the call returns, its `ret` lands in rt_sigreturn, and the kernel
// itself loads what the thread had. That holds in system-call and event stops, and in the stop of an ignored signal;
// not in the one that a single step would make: a tracer's death there delivers the SIGTRAP.
extension HeldThread {
    static let allSignals = UInt64.max

    /// Writes the recovery frames into the scratch area, and points the thread at them. Until the last step the thread
    /// would run on as found.
    private func installRecoveryFrames() throws(Errno) {
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
            code = try codeBefore(found.instructionPointer)
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
    private func closeAtTheEnd(_ descriptor: Int32) throws(Errno) {
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
    private func restoreThread() throws(Errno) {
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

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
    private(set) var openMemory: TargetMemory?
    /// The registers as detach puts them back.
    var found = Registers()
    /// The thread's blocked signals.
    var mask: UInt64 = 0
    let scratch = ScratchArea()
    /// The target's XSAVE area lies in the scratch area; nil: it could not be read.
    var xsave: XSaveArea?
    /// From now on the thread's registers, mask or memory may differ from what was found.
    var isChanged = false
    /// The thread may run along several calls without being looked at.
    var mayChain = false
    /// A chain has run.
    var hasChained = false
    /// The target recovers by itself should this process be killed.
    var isCrashSafe = false
    /// A filter is suspended: the thread may make calls that it is not allowed to make.
    private(set) var isFilterSuspended = false
    /// The number to call on: the target's own, or a duplicate that no other thread knows.
    var descriptor: Int32
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
            RemoteSocket.AttachError(reason: error == .noSuchProcess ? .gone : .call, errno: .ioError)
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
            .fcntl, on: target.holder.fd, Self.duplicateCloseOnExec, UInt64(target.spareDescriptor))
        try closeAtTheEnd(target.spareDescriptor)
        do {
            descriptor = Int32(truncatingIfNeeded: try call(duplicate).get())
        } catch .badFileDescriptor {
            throw .staleNFSFileHandle
        }
        if descriptor != target.spareDescriptor { try closeAtTheEnd(descriptor) }
    }

    /// F_DUPFD_CLOEXEC.
    private static let duplicateCloseOnExec: UInt64 = 1030

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

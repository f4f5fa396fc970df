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
    var openMemory: TargetMemory?
    /// The registers that detach restores.
    var found = Registers()
    /// The system call in which the thread was stopped.
    var interrupted = InterruptedSyscall(found: Registers(), code: [])
    /// The thread's blocked signals.
    var mask: UInt64 = 0
    /// How the mask is changed.
    var masking = Masking.byRequest
    let scratch = ScratchArea()
    /// The target's XSAVE area in the scratch area; nil if it could not be read.
    var xsave: XSaveArea?
    /// The thread's registers, mask or memory may differ from the state found.
    var isChanged = false
    /// The thread may run several calls without a check between them.
    var mayChain = false
    /// A chain has run.
    var hasChained = false
    /// If this process is killed, the target recovers without it.
    var isCrashSafe = false
    /// A filter is suspended: the thread can make calls that the filter forbids.
    private(set) var isFilterSuspended = false
    /// The descriptor for the calls: the target's own, or a duplicate that no other thread knows.
    private(set) var descriptor: Int32
    /// The current step, which is the reason if it fails.
    var reason = RemoteSocket.Reason.seize
    private var isSeized = false

    /// Longer than any thread needs to reach its next stop, except in uninterruptible sleep.
    private static let timeout = Duration.seconds(1)

    init(_ target: RemoteTarget) {
        self.target = target
        tracee = Tracee(process: target.holder.pid, tid: target.tid, timeout: Self.timeout, procfs: target.procfs)
        descriptor = target.holder.fd
    }

    deinit {
        _ = try? detach()
    }

    /// - Throws: ``RemoteSocket/AttachError``. Then nothing is held.
    func attach() throws(RemoteSocket.AttachError) {
        // Found out once, and before a thread stands still.
        _ = XSaveArea.featureEnds
        _ = RestartableSequence.mayBeHidden
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
        case .gone where isUntouched, .same where isUntouched && error == .noSuchProcess:
            RemoteSocket.AttachError(reason: .ended, errno: .noSuchProcess)
        case .gone: RemoteSocket.AttachError(reason: .gone, errno: .noSuchProcess)
        case .same where reason == .call:
            RemoteSocket.AttachError(
                reason: error == .noSuchProcess ? .gone : .call, errno: error == .timedOut ? .timedOut : .ioError)
        case .same: RemoteSocket.AttachError(reason: error == .noSuchProcess ? .gone : reason, errno: error)
        }
    }

    /// No call was made in it, and nothing was written into its memory.
    private var isUntouched: Bool { reason == .seize || reason == .stop }

    private func prepare() throws(Errno) {
        // If this process dies before the recovery frames are installed, the kernel detaches and the thread runs on
        // unchanged.
        reason = .seize
        try seize()
        reason = .stop
        try tracee.interrupt()
        try settle()
        try inspect()
        try installRecoveryFrames(yields: Self.maxYields)
        reason = .descriptor
        try chooseDescriptor()
    }

    /// A signal that comes before all signals are blocked is delivered. The thread is held again before the first
    /// instruction of the handler.
    private func installRecoveryFrames(yields: Int) throws(Errno) {
        do {
            try installRecoveryFrames()
        } catch .interrupted where yields > 0 {
            try restoreThread()
            isChanged = false
            scratch.address = nil
            WorkerProgress.hold(isUnsafe: false)
            // It may run its own code again, so its own filter sees its calls.
            try tracee.restoreSeccomp()
            isFilterSuspended = false
            tracee.isGuarded = false
            try tracee.interrupt()
            try settle()
            try inspect()
            try installRecoveryFrames(yields: yields - 1)
        }
    }

    private static let maxYields = 10

    private func seize() throws(Errno) {
        do {
            try tracee.seize()
            isSeized = true
        } catch .notPermitted {
            // A thread that has just died gives EPERM, too.
            throw target.procfs.hasEnded(path) ? .noSuchProcess : .notPermitted
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
        if openMemory == nil {
            openMemory = try TargetMemory(procfs: target.procfs, thread: path, isWritten: true)
        }
        let status = try target.status(of: path)
        let isCovered = target.rights.areCovered(by: status, path, target.procfs)
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
    }

    /// The thread's folder in `/proc`.
    var path: String { "\(target.holder.pid)/task/\(tracee.tid)" }

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

    /// Makes the close frame close this descriptor.
    private func closeAtTheEnd(_ descriptor: Int32) throws(Errno) {
        try writeCloseFrame(closing(descriptor), mask: Self.allSignals)
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

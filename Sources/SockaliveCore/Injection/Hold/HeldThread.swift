import SystemPackage

/// One thread of a process, held still and ready for remote calls on its descriptor. The other threads run on.
///
///     hold      seize, interrupt; look; spread the parachute (HeldThread+Parachute); take the descriptor
///     call      runs the target's own system call instruction, its stack pointer at the parachute
///     letGo     back to the kind of stop that hold made; put everything back; detach
///
/// Letting go ends where holding began, inside the kernel's signal handling (get_signal), with the registers as they
/// were found there, an interrupted call's -ERESTART code included. So the kernel itself takes that call up again, or
/// delivers a signal that came meanwhile and answers EINTR where that is due. Nobody else can decide it without a
/// race.
///
/// It belongs to the thread of this process that held it, and lets go at the latest when it goes away.
final class HeldThread {
    let target: RemoteTarget
    var tracee: Tracee
    /// The registers as letGo puts them back.
    var found = Registers()
    /// The thread's blocked signals.
    var mask: UInt64 = 0
    let pad = Pad()
    /// The target's floating state lies in the pad; nil: it could not be read.
    var floating: FloatingState?
    /// From now on the thread's registers, mask or memory may differ from what was found.
    var isChanged = false
    /// rt_sigreturn works in this target, and takes nothing from it.
    var mayChain = false
    /// A chain has run.
    var hasChained = false
    /// The target recovers by itself should this process be killed.
    var isCrashSafe = false
    /// The number to call on: the target's own, or a duplicate that no other thread knows.
    var descriptor: Int32
    private var stage = RemoteSocket.Stage.seize
    private var isSeized = false

    /// Longer than any thread takes to reach its next stop, unless it sleeps uninterruptibly.
    private static let patience = Duration.seconds(1)

    init(_ target: RemoteTarget) {
        self.target = target
        tracee = Tracee(tid: target.tid, patience: Self.patience)
        descriptor = target.holder.fd
    }

    deinit {
        letGo()
    }

    /// - Throws: ``RemoteSocket/Refusal``; then nothing is held.
    func hold() throws(RemoteSocket.Refusal) {
        _ = FloatingState.featureEnds
        do {
            try takeHold()
        } catch {
            letGo()
            throw RemoteSocket.Refusal(stage: error == .noSuchProcess ? .gone : stage, errno: error)
        }
    }

    private func takeHold() throws(Errno) {
        // Killed from here on, before the parachute: the kernel detaches, and the thread runs on as it was.
        stage = .seize
        try seize()
        stage = .stop
        try tracee.interrupt(isStopped: false)
        try look()
        try spreadParachute()
        stage = .descriptor
        try takeDescriptor()
    }

    private func seize() throws(Errno) {
        do {
            try tracee.seize()
            isSeized = true
        } catch .notPermitted where !target.isSocket(target.holder.fd) {
            throw .noSuchProcess  // what has just died is refused like this, too
        }
    }

    /// What must be known of the stopped thread before anything is changed.
    private func look() throws(Errno) {
        stage = .seccomp
        // Asked for in any case: a filter may have come since.
        let isSuspended = (try? tracee.suspendSeccomp()) != nil
        guard isSuspended || target.status.seccomp == 0 else { throw .notPermitted }
        stage = .prepare
        found = try tracee.registers()
        guard found.isServed(is32Bit: target.code.is32Bit) else {
            stage = .unsupported
            throw .notSupported
        }
        guard let call = target.code.call, stands(call), target.code.sigreturn.map(stands) ?? true else {
            throw .execFormatError
        }
        mask = try tracee.signalMask()
    }

    /// Do the bytes that were found still stand there?
    private func stands(_ site: MachineCode.Site) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: site.bytes.count, alignment: 1) { bytes in
            (try? tracee.read(site.address, into: bytes)) != nil && bytes.elementsEqual(site.bytes)
        }
    }

    /// Which number to call on. Alone, a held thread keeps its descriptors. Among others it does not: they may close
    /// the number, or open another file under it, between the look and the call. So there the socket gets a second
    /// number, which nobody knows, and that one is looked at. It was chosen before, so that the parachute can close
    /// it from the moment on when it is open.
    private func takeDescriptor() throws(Errno) {
        if !target.hasOneThread { try duplicateDescriptor() }
        guard target.isSocket(descriptor) else { throw .staleNFSFileHandle }
    }

    private func duplicateDescriptor() throws(Errno) {
        let duplicate = RemoteCall(
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

    /// Back to what was found, and let go. A thread that never stopped is let go when the one that seized it ends.
    ///
    /// - Returns: for how long it stood still.
    @discardableResult
    func letGo() -> Duration {
        guard isSeized else { return .zero }
        isSeized = false
        if descriptor != target.holder.fd { _ = try? call(RemoteCall(.close, on: descriptor)) }
        if isChanged { foldParachute() }
        tracee.detach()
        return tracee.standstill
    }
}

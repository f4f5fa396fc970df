import CSockalive
import Glibc
import SystemPackage

/// One thread of another process under ptrace(2): its stops, registers and memory.
///
/// It belongs to the thread of this process that seized it.
struct Tracee {
    /// Where a thread stands still.
    enum Stop: Equatable {
        /// PTRACE_EVENT_STOP: an interruption, or a group stop that goes on.
        case event
        /// At the entry of a system call, or at its exit.
        case systemCall
        /// A signal is about to be delivered.
        case signal(Int32)
    }

    /// How a stopped thread runs on.
    enum Resumption {
        case toAnyStop, toSystemCall
    }

    let tid: Int32
    /// How long any single wait may take: a thread in state D never stops.
    let patience: Duration
    /// The present stop is one of get_signal's, in the kernel's signal handling.
    private(set) var isInSignalHandling = false
    private var hasStopped = false
    /// Before its first stop.
    private var lastSeenRunning = SuspendingClock.now

    /// A stop comes within some microseconds, if it comes at once.
    private static let spinning = Duration.microseconds(200)
    private static let pause: useconds_t = 100

    init(tid: Int32, patience: Duration) {
        self.tid = tid
        self.patience = patience
    }

    /// For how long it has stood still, give or take the time of one look.
    var standstill: Duration { hasStopped ? SuspendingClock.now - lastSeenRunning : .zero }

    // MARK: requests

    /// PTRACE_SEIZE: no SIGSTOP is left behind, and a thread that was stopped stays so. System call stops are told
    /// apart from a SIGTRAP.
    func seize() throws(Errno) {
        try request(.seize, data: Options.systemCallsMarked)
    }

    /// No filter sees a remote call, not even one that another thread puts on the whole process meanwhile.
    ///
    /// PTRACE_O_SUSPEND_SECCOMP (Linux 4.3): needs CAP_SYS_ADMIN, and to be without a filter oneself.
    func suspendSeccomp() throws(Errno) {
        try request(.setOptions, data: Options.systemCallsMarked | Options.seccompSuspended)
    }

    /// One that has never stopped is let go when the thread that seized it ends (exit_ptrace).
    func detach() {
        try? request(.detach)
    }

    private enum Options {
        static let systemCallsMarked: UInt = 1
        static let seccompSuspended: UInt = 1 << 21
    }

    /// By their numbers in linux/ptrace.h and asm/ptrace-abi.h.
    private enum Request: Int32 {
        case resume = 7
        case getRegisters = 12
        case setRegisters = 13
        case detach = 17
        case resumeToSystemCall = 24
        case setOptions = 0x4200
        case getRegisterSet = 0x4204
        case setRegisterSet = 0x4205
        case seize = 0x4206
        case interrupt = 0x4207
        case getSignalMask = 0x420a
        case setSignalMask = 0x420b
        /// Linux 5.13.
        case getRestartableSequence = 0x420f
    }

    private func request(_ request: Request, address: UInt = 0, data: UInt = 0) throws(Errno) {
        let status = sockalive_ptrace(request.rawValue, tid, address, data)
        if status < 0 { throw Errno(rawValue: -status) }
    }

    private func request<Value: BitwiseCopyable>(
        _ request: Request, address: UInt, _ value: inout Value
    ) throws(Errno) {
        let status = withUnsafeMutablePointer(to: &value) {
            sockalive_ptrace(request.rawValue, tid, address, UInt(bitPattern: $0))
        }
        if status < 0 { throw Errno(rawValue: -status) }
    }
}

// MARK: - stops

extension Tracee {
    func resume(_ how: Resumption, deliver signal: Int32 = 0) throws(Errno) {
        try request(how == .toAnyStop ? .resume : .resumeToSystemCall, data: UInt(signal))
    }

    /// From running, or from a stop, to an event stop.
    mutating func interrupt(isStopped: Bool) throws(Errno) {
        try request(.interrupt)
        if isStopped { try resume(.toAnyStop) }
        try run(.toAnyStop, to: .event)
    }

    /// Runs the thread to the stop wanted. Any other is handed back: a signal is delivered, a group stop stays in
    /// effect (detaching puts the thread back into that).
    ///
    /// - Throws: `noSuchProcess` where the thread has ended; `timedOut`.
    mutating func run(_ how: Resumption, to wanted: Stop) throws(Errno) {
        while true {
            let stop = try awaitStop()
            // An event stop and a signal's are made by get_signal: release may end there.
            isInSignalHandling = stop != .systemCall
            if stop == wanted {
                hasStopped = true
                return
            }
            if case .signal(let number) = stop {
                try resume(how, deliver: number)
            } else {
                try resume(how)
            }
        }
    }

    /// Measured on a virtual machine with 2 CPUs, for a resume and the stop after it: yielding 5.7 us, blocking in
    /// waitid 6.9 us (and that has no timeout), spinning 9.2 us. To run on the thread's CPU changes nothing: the
    /// kernel wakes it on the idle one.
    private mutating func awaitStop() throws(Errno) -> Stop {
        let start = SuspendingClock.now
        var now = start
        repeat {
            if !hasStopped { lastSeenRunning = now }
            let status = sockalive_stop_status(tid)
            if status > 0 { return Stop(status) }
            if status < 0 { throw Errno(rawValue: -status) }
            now = SuspendingClock.now
            if now - start < Self.spinning { sched_yield() } else { usleep(Self.pause) }
        } while now - start < patience
        throw .timedOut
    }
}

extension Tracee.Stop {
    /// What waitid(2) answers: a signal; with 0x80 a system call stop (PTRACE_O_TRACESYSGOOD); above it an event.
    fileprivate init(_ status: Int32) {
        let event: Int32 = 128
        self = status >> 8 == event ? .event : status == SIGTRAP | 0x80 ? .systemCall : .signal(status)
    }
}

// MARK: - registers and memory

extension Tracee {
    /// The 64-bit layout even of a 32-bit thread (arch_ptrace, PTRACE_GETREGS).
    func registers() throws(Errno) -> Registers {
        var registers = Registers()
        try request(.getRegisters, address: 0, &registers.user)
        return registers
    }

    func set(_ registers: Registers) throws(Errno) {
        var user = registers.user
        try request(.setRegisters, address: 0, &user)
    }

    /// A register set by its note type (linux/elf.h), as much as the bytes hold. Answers how much there was.
    func registerSet(_ type: UInt, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        var vector = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        try request(.getRegisterSet, address: type, &vector)
        return vector.iov_len
    }

    func setRegisterSet(_ type: UInt, from bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        var vector = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        try request(.setRegisterSet, address: type, &vector)
    }

    /// Signals that the thread blocks: bit n - 1 is signal n.
    func signalMask() throws(Errno) -> UInt64 {
        var mask: UInt64 = 0
        try request(.getSignalMask, address: UInt(MemoryLayout<UInt64>.size), &mask)
        return mask
    }

    func setSignalMask(_ mask: UInt64) throws(Errno) {
        var mask = mask
        try request(.setSignalMask, address: UInt(MemoryLayout<UInt64>.size), &mask)
    }

    /// Where the thread has registered its restartable sequences (struct rseq); nil: nowhere, or the kernel is too
    /// old to tell.
    func restartableSequenceArea() -> UInt64? {
        // Address; size and signature; flags and padding (struct ptrace_rseq_configuration).
        var configuration: (address: UInt64, UInt64, UInt64) = (0, 0, 0)
        let size = UInt(MemoryLayout.size(ofValue: configuration))
        guard (try? request(.getRestartableSequence, address: size, &configuration)) != nil else { return nil }
        return configuration.address == 0 ? nil : configuration.address
    }

    /// - Throws: `badAddress` where not all of it was to be read.
    func read(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        let count = sockalive_read_memory(tid, address, bytes.baseAddress, bytes.count)
        if count != bytes.count { throw count < 0 ? Errno(rawValue: Int32(-count)) : .badAddress }
    }

    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt64) throws(Errno) {
        let count = sockalive_write_memory(tid, address, bytes.baseAddress, bytes.count)
        if count != bytes.count { throw count < 0 ? Errno(rawValue: Int32(-count)) : .badAddress }
    }

    /// A value as it lies in the thread's memory; nil where it was not to be read.
    func value<Value: BitwiseCopyable>(at address: UInt64, like sample: Value) -> Value? {
        var value = sample
        let result = withUnsafeMutableBytes(of: &value) { bytes in
            sockalive_read_memory(tid, address, bytes.baseAddress, bytes.count) == bytes.count
        }
        return result ? value : nil
    }
}

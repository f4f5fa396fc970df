import CSockalive
import Glibc
import SystemPackage

/// One thread of another process under ptrace(2): its stops and registers.
///
/// It belongs to the thread of this process that seized it. The target may be hostile: its other threads, and processes
/// that share its memory, may change everything between two requests. Therefore:
///
/// - ESRCH from any request ends everything: the thread is gone, or is another one. No request follows.
/// - The kernel reports an execve(2) before the new program runs (PTRACE_O_TRACEEXEC). After it, only two things are
///   allowed: set the signal mask, which the new program has inherited, and detach.
/// - A thread gets requests other than an interrupt only after its stop was seen. A thread that was resumed and has not
///   stopped again may run anywhere, or may be in a stop that the target chose.
/// - A guarded thread makes only requested system calls: it is resumed so that each call stops it, and each stop at the
///   entry of a call is checked.
final class Tracee {
    /// The kind of a stop.
    enum Stop: Equatable {
        /// PTRACE_EVENT_STOP: an interrupt, or a group stop that continues.
        case event
        /// PTRACE_EVENT_EXEC: another program is about to run.
        case exec
        /// The entry or the exit of a system call.
        case systemCall
        /// A signal is about to be delivered.
        case signal(Int32)
    }

    /// Where a resumed thread stops next.
    enum Resumption {
        case toAnyStop, toSystemCall
    }

    /// What happened to the thread.
    enum State {
        /// It still runs the program that was seized.
        case same
        /// It runs another program.
        case replaced
        case gone
    }

    /// The thread's number. A thread that calls execve(2) gets the number of its process (fs/exec.c, de_thread).
    private(set) var tid: Int32
    private(set) var state = State.same
    /// Whether unrequested calls are skipped. Before the thread is changed, all calls are its own.
    var isGuarded = false
    /// The present stop was seen, and the thread was not resumed since.
    private var isStopped = false
    /// The present stop was made by get_signal, in the kernel's signal handling.
    private(set) var isInSignalHandling = false

    private let process: Int32
    /// The longest single wait. A thread in state D never stops.
    var timeout: Duration
    private var hasStopped = false
    /// The last time before the first stop at which the thread ran.
    private var lastSeenRunning = SuspendingClock.now

    /// An immediate stop comes within some microseconds.
    private static let spinning = Duration.microseconds(200)
    private static let pause: useconds_t = 100

    init(process: Int32, tid: Int32, timeout: Duration) {
        self.process = process
        self.tid = tid
        self.timeout = timeout
    }

    /// How long the thread has been stopped, give or take one poll.
    var pauseDuration: Duration { hasStopped ? SuspendingClock.now - lastSeenRunning : .zero }

    // MARK: - Requests

    /// PTRACE_SEIZE: it leaves no SIGSTOP behind, and a stopped thread stays stopped. The options distinguish system
    /// call stops from a SIGTRAP, and report an execve(2).
    func seize() throws(Errno) {
        WorkerProgress.enter(next: .seize)
        try request(.seize, data: Options.always)
    }

    /// Hides remote calls from every filter, also from one that another thread adds to the whole process meanwhile.
    ///
    /// PTRACE_O_SUSPEND_SECCOMP (Linux 4.3) needs CAP_SYS_ADMIN, and a caller without a filter.
    func suspendSeccomp() throws(Errno) {
        try request(.setOptions, data: Options.always | Options.seccompSuspended)
    }

    /// Fails for a thread that never stopped. The kernel detaches it when the thread that seized it ends (exit_ptrace).
    func detach() throws(Errno) {
        try request(.detach)
    }

    private enum Options {
        static let always = UInt(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC)
        static let seccompSuspended = UInt(PTRACE_O_SUSPEND_SECCOMP)
    }

    private struct Request: Equatable {
        let number: Int32

        init(_ number: Int32) {
            self.number = number
        }

        static let seize = Request(PTRACE_SEIZE)
        static let interrupt = Request(PTRACE_INTERRUPT)
        static let detach = Request(PTRACE_DETACH)
        static let setOptions = Request(PTRACE_SETOPTIONS)
        static let resume = Request(PTRACE_CONT)
        static let resumeToSystemCall = Request(PTRACE_SYSCALL)
        static let poke = Request(PTRACE_POKEDATA)
        static let getRegisters = Request(Registers.getRequest)
        static let setRegisters = Request(Registers.setRequest)
        static let getRegisterSet = Request(PTRACE_GETREGSET)
        static let setRegisterSet = Request(PTRACE_SETREGSET)
        static let getSignalMask = Request(PTRACE_GETSIGMASK)
        static let setSignalMask = Request(PTRACE_SETSIGMASK)
        /// Linux 5.3.
        static let getSyscallInfo = Request(PTRACE_GET_SYSCALL_INFO)
        /// Linux 5.13.
        static let getRestartableSequence = Request(PTRACE_GET_RSEQ_CONFIGURATION)
        /// Linux 6.4.
        static let getSyscallUserDispatch = Request(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG)

        /// The request does not touch anything of the program.
        var isForAnyProgram: Bool { self == .setSignalMask || self == .detach }
        var isForRunning: Bool { self == .seize || self == .interrupt }
    }

    private func request(_ request: Request, address: UInt = 0, data: UInt = 0) throws(Errno) {
        guard state == .same || (state == .replaced && request.isForAnyProgram) else { throw .noSuchProcess }
        guard isStopped || request.isForRunning else { throw .resourceBusy }
        let status = sockalive_ptrace(request.number, tid, address, data)
        if status == -ESRCH { state = .gone }
        if status < 0 { throw Errno(rawValue: -status) }
    }

    private func request<Value: BitwiseCopyable>(
        _ request: Request, address: UInt, _ value: inout Value
    ) throws(Errno) {
        var failure: Errno?
        withUnsafeMutablePointer(to: &value) { pointer in
            do throws(Errno) {
                try self.request(request, address: address, data: UInt(bitPattern: pointer))
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }
}

// MARK: - Stops

extension Tracee {
    func resume(_ how: Resumption, deliver signal: Int32 = 0) throws(Errno) {
        let isFree = how == .toAnyStop && !isGuarded
        try request(isFree ? .resume : .resumeToSystemCall, data: UInt(signal))
        isStopped = false
    }

    /// Brings the thread to an event stop, from running or from another stop.
    func interrupt() throws(Errno) {
        try request(.interrupt)
        if isStopped { try resume(.toAnyStop) }
        try run(.toAnyStop, to: .event)
    }

    /// Runs the thread to the wanted stop. Other stops are passed on: a signal is delivered, and a group stop stays in
    /// effect, because detaching returns the thread to it.
    ///
    /// - Throws: `noSuchProcess` if the thread has ended or runs another program; `timedOut`.
    func run(_ how: Resumption, to wanted: Stop) throws(Errno) {
        while true {
            let stop = try awaitStop()
            // get_signal makes event stops and signal stops. The thread may be detached there.
            isInSignalHandling = stop != .systemCall && stop != .exec
            if stop == .exec {
                state = .replaced
                throw .noSuchProcess
            }
            if stop == wanted {
                hasStopped = true
                return
            }
            // Any trap clears a pending interrupt (kernel/signal.c, ptrace_stop). Request it again while the thread is
            // stopped; otherwise the thread would run freely.
            if wanted == .event { try request(.interrupt) }
            switch stop {
            case .signal(let number): try resume(how, deliver: number)
            case .systemCall where isGuarded:
                try skipCall()
                try resume(how)
            default: try resume(how)
            }
        }
    }

    /// At the entry of a system call, skips the call: the kernel does not make a call of number -1
    /// (kernel/entry/common.c, syscall_trace_enter; seccomp(2), SECCOMP_RET_TRACE). At an exit the only effect is that
    /// the kernel does not restart the call.
    func skipCall() throws(Errno) {
        var registers = try registers()
        registers.skipCall()
        try set(registers)
    }

    /// Polls for the next stop. Measured on a virtual machine with 2 CPUs, for a resume and the stop after it: yielding
    /// 5.7 us, blocking in waitid (which has no timeout) 6.9 us, spinning 9.2 us. Running on the thread's CPU makes no
    /// difference: the kernel wakes the thread on the idle CPU.
    private func awaitStop() throws(Errno) -> Stop {
        guard state == .same else { throw .noSuchProcess }
        let start = SuspendingClock.now
        var now = start
        repeat {
            // This wait has an end of its own.
            WorkerProgress.enter(next: .stop)
            if !hasStopped { lastSeenRunning = now }
            let status = sockalive_stop_status(tid)
            if status > 0 {
                isStopped = true
                return Stop(status)
            }
            if status < 0 { try followExec() }
            now = SuspendingClock.now
            if now - start < Self.spinning { sched_yield() } else { usleep(Self.pause) }
        } while now - start < timeout
        throw .timedOut
    }

    /// No thread has this number any more. Either the thread has ended, or it is in execve(2) and has the process's
    /// number. In the second case, wait for that number.
    private func followExec() throws(Errno) {
        guard tid != process, sockalive_stop_status(process) >= 0 else {
            state = .gone
            throw .noSuchProcess
        }
        tid = process
    }
}

extension Tracee.Stop {
    /// `status` from waitid(2): a signal; a system call stop has 0x80 (PTRACE_O_TRACESYSGOOD); an event is in the bits above 0xff.
    fileprivate init(_ status: Int32) {
        switch status >> 8 {
        case PTRACE_EVENT_STOP: self = .event
        case PTRACE_EVENT_EXEC: self = .exec
        default: self = status == SIGTRAP | 0x80 ? .systemCall : .signal(status)
        }
    }
}

// MARK: - Registers

extension Tracee {
    /// The layout is the 64-bit one even for a 32-bit thread (arch_ptrace, PTRACE_GETREGS).
    func registers() throws(Errno) -> Registers {
        var registers = Registers()
        try request(.getRegisters, address: 0, &registers.user)
        return registers
    }

    func set(_ registers: Registers) throws(Errno) {
        var user = registers.user
        try request(.setRegisters, address: 0, &user)
    }

    /// PTRACE_POKEDATA: writes one word of the stopped thread's memory.
    ///
    /// - Throws: `badAddress` if it is not mapped (EIO, EFAULT).
    func poke(_ word: UInt64, at address: UInt64) throws(Errno) {
        do {
            try request(.poke, address: UInt(address), data: UInt(word))
        } catch .ioError {
            throw .badAddress
        }
    }

    /// Reads a register set by its note type (linux/elf.h), as much as fits. Returns its size.
    func registerSet(_ type: UInt, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        var vector = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        try request(.getRegisterSet, address: type, &vector)
        return vector.iov_len
    }

    func setRegisterSet(_ type: UInt, from bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        var vector = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        try request(.setRegisterSet, address: type, &vector)
    }

    /// The signals that the thread blocks: bit n - 1 is signal n.
    func signalMask() throws(Errno) -> UInt64 {
        var mask: UInt64 = 0
        try request(.getSignalMask, address: UInt(MemoryLayout<UInt64>.size), &mask)
        return mask
    }

    func setSignalMask(_ mask: UInt64) throws(Errno) {
        var mask = mask
        try request(.setSignalMask, address: UInt(MemoryLayout<UInt64>.size), &mask)
    }

    /// The system call at whose entry the thread is stopped, as the kernel sees it; nil if the kernel is too old.
    ///
    /// - Throws: `invalidArgument` if the stop is not at an entry.
    func entry() throws(Errno) -> SyscallEntry? {
        var info = sockalive_syscall_entry()
        do {
            try request(.getSyscallInfo, address: UInt(MemoryLayout.size(ofValue: info)), &info)
        } catch .ioError {
            return nil
        }
        guard info.op == UInt8(PTRACE_SYSCALL_INFO_ENTRY) else { throw .invalidArgument }
        return SyscallEntry(info)
    }

    /// Whether the thread turns its own system calls into SIGSYS (prctl(2), PR_SET_SYSCALL_USER_DISPATCH), as emulators
    /// do. A remote call would kill it. False if the kernel is too old to tell.
    func dispatchesSystemCalls() throws(Errno) -> Bool {
        // struct ptrace_sud_config: mode, selector, offset, length.
        var configuration: (mode: UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let size = UInt(MemoryLayout.size(ofValue: configuration))
        do {
            try request(.getSyscallUserDispatch, address: size, &configuration)
        } catch .ioError {
            return false
        } catch .invalidArgument {
            return false
        }
        return configuration.mode != 0
    }

    /// The address of the thread's struct rseq; nil if none is registered, or if the kernel is too old to tell (EIO,
    /// EINVAL: no such request).
    func restartableSequenceArea() throws(Errno) -> UInt64? {
        // struct ptrace_rseq_configuration: address; size and signature; flags and padding.
        var configuration: (address: UInt64, UInt64, UInt64) = (0, 0, 0)
        let size = UInt(MemoryLayout.size(ofValue: configuration))
        do {
            try request(.getRestartableSequence, address: size, &configuration)
        } catch .ioError {
            return nil
        } catch .invalidArgument {
            return nil
        }
        return configuration.address == 0 ? nil : configuration.address
    }
}

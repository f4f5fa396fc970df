import CSockalive
import Glibc
import SystemPackage

/// One thread of another process under ptrace(2): its stops and registers.
///
/// It belongs to the thread of this process that seized it. The target is an enemy until shown otherwise: its other
/// threads, and processes that share its memory, change what they like between any two requests. So:
///
/// - ESRCH from any request ends everything: the thread is gone, or is another one. No request is made after it.
/// - An execve(2) is reported by the kernel before the new program runs (PTRACE_O_TRACEEXEC). From then on only the
///   signal mask can be set, which the new program has inherited, and the thread can be detached.
/// - Only a thread whose stop was seen is asked for anything but an interruption. One that was resumed and has not
///   stopped again may run anywhere, and may stand in a stop of its own choice.
/// - While it is guarded, no system call is made that was not asked for: it is resumed so that each call stops it, and
///   each stop at a call's entry is looked at.
final class Tracee {
    /// Where a thread stands still.
    enum Stop: Equatable {
        /// PTRACE_EVENT_STOP: an interruption, or a group stop that goes on.
        case event
        /// PTRACE_EVENT_EXEC: another program is about to run.
        case exec
        /// At the entry of a system call, or at its exit.
        case systemCall
        /// A signal is about to be delivered.
        case signal(Int32)
    }

    /// How a stopped thread runs on.
    enum Resumption {
        case toAnyStop, toSystemCall
    }

    /// What has become of the thread.
    enum State {
        /// The one that was seized, in the program that it ran.
        case same
        /// It runs another program.
        case replaced
        case gone
    }

    /// Its number. A thread that calls execve(2) takes the number of its process (fs/exec.c, de_thread).
    private(set) var tid: Int32
    private(set) var state = State.same
    /// A call that was not asked for is turned into none. Before anything is changed in the thread all calls are its own.
    var isGuarded = false
    /// Its present stop was seen, and it was not resumed since.
    private var isStopped = false
    /// The present stop is one of get_signal's, in the kernel's signal handling.
    private(set) var isInSignalHandling = false

    private let process: Int32
    /// How long any single wait may take: a thread in state D never stops.
    var timeout: Duration
    private var hasStopped = false
    /// Before its first stop.
    private var lastSeenRunning = SuspendingClock.now

    /// A stop comes within some microseconds, if it comes at once.
    private static let spinning = Duration.microseconds(200)
    private static let pause: useconds_t = 100

    init(process: Int32, tid: Int32, timeout: Duration) {
        self.process = process
        self.tid = tid
        self.timeout = timeout
    }

    /// For how long it has stood still, give or take the time of one look.
    var pauseDuration: Duration { hasStopped ? SuspendingClock.now - lastSeenRunning : .zero }

    // MARK: requests

    /// PTRACE_SEIZE: no SIGSTOP is left behind, and a thread that was stopped stays so. System call stops are told
    /// apart from a SIGTRAP, and an execve(2) is reported.
    func seize() throws(Errno) {
        WorkerProgress.enter(next: .seize)
        try request(.seize, data: Options.always)
    }

    /// No filter sees a remote call, not even one that another thread puts on the whole process meanwhile.
    ///
    /// PTRACE_O_SUSPEND_SECCOMP (Linux 4.3): needs CAP_SYS_ADMIN, and to be without a filter oneself.
    func suspendSeccomp() throws(Errno) {
        try request(.setOptions, data: Options.always | Options.seccompSuspended)
    }

    /// One that has never stopped is let go when the thread that seized it ends (exit_ptrace).
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

        /// It touches nothing that belongs to the program.
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

// MARK: - stops

extension Tracee {
    func resume(_ how: Resumption, deliver signal: Int32 = 0) throws(Errno) {
        let isFree = how == .toAnyStop && !isGuarded
        try request(isFree ? .resume : .resumeToSystemCall, data: UInt(signal))
        isStopped = false
    }

    /// From running, or from a stop, to an event stop.
    func interrupt() throws(Errno) {
        try request(.interrupt)
        if isStopped { try resume(.toAnyStop) }
        try run(.toAnyStop, to: .event)
    }

    /// Runs the thread to the stop wanted. Any other is handed back: a signal is delivered, a group stop stays in
    /// effect (detaching puts the thread back into that).
    ///
    /// - Throws: `noSuchProcess` where the thread has ended, or runs another program; `timedOut`.
    func run(_ how: Resumption, to wanted: Stop) throws(Errno) {
        while true {
            let stop = try awaitStop()
            // An event stop and a signal's are made by get_signal: release may end there.
            isInSignalHandling = stop != .systemCall && stop != .exec
            if stop == .exec {
                state = .replaced
                throw .noSuchProcess
            }
            if stop == wanted {
                hasStopped = true
                return
            }
            // Any trap takes a pending interruption away (kernel/signal.c, ptrace_stop): it is asked for again while the
            // thread stands, or it would run on freely.
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

    /// At the entry of a system call: it is not made (a number of -1 skips it: kernel/entry/common.c,
    /// syscall_trace_enter; seccomp(2), SECCOMP_RET_TRACE). At
    /// an exit it changes nothing but that the kernel takes the result for no interrupted call's.
    func skipCall() throws(Errno) {
        var registers = try registers()
        registers.skipCall()
        try set(registers)
    }

    /// Measured on a virtual machine with 2 CPUs, for a resume and the stop after it: yielding 5.7 us, blocking in
    /// waitid 6.9 us (and that has no timeout), spinning 9.2 us. To run on the thread's CPU changes nothing: the
    /// kernel wakes it on the idle one.
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

    /// Nobody has the thread's number any more. Either it has ended, or it is in execve(2) and has the process's: then
    /// that one is ours to wait for.
    private func followExec() throws(Errno) {
        guard tid != process, sockalive_stop_status(process) >= 0 else {
            state = .gone
            throw .noSuchProcess
        }
        tid = process
    }
}

extension Tracee.Stop {
    /// What waitid(2) answers: a signal; with 0x80 a system call stop (PTRACE_O_TRACESYSGOOD); above it an event.
    fileprivate init(_ status: Int32) {
        switch status >> 8 {
        case PTRACE_EVENT_STOP: self = .event
        case PTRACE_EVENT_EXEC: self = .exec
        default: self = status == SIGTRAP | 0x80 ? .systemCall : .signal(status)
        }
    }
}

// MARK: - registers

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

    /// PTRACE_POKEDATA: a word of the memory that the thread has, which stands still.
    ///
    /// - Throws: `badAddress` where it is not mapped (EIO, EFAULT).
    func poke(_ word: UInt64, at address: UInt64) throws(Errno) {
        do {
            try request(.poke, address: UInt(address), data: UInt(word))
        } catch .ioError {
            throw .badAddress
        }
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

    /// The system call at whose entry the thread stands, as the kernel takes it; nil where the kernel is too old to tell.
    ///
    /// - Throws: `invalidArgument` where it stands elsewhere.
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

    /// Whether the thread has its own system calls turned into SIGSYS (prctl(2), PR_SET_SYSCALL_USER_DISPATCH), as
    /// emulators do: a remote call would kill it. False where the kernel is too old to tell.
    func dispatchesSystemCalls() throws(Errno) -> Bool {
        // Mode, selector, offset, length (struct ptrace_sud_config).
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

    /// Where the thread has registered its restartable sequences (struct rseq); nil: nowhere, or the kernel is too
    /// old to tell (EIO, EINVAL: no such request).
    func restartableSequenceArea() throws(Errno) -> UInt64? {
        // Address; size and signature; flags and padding (struct ptrace_rseq_configuration).
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

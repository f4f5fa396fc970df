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
    /// The present stop is a group stop: the process was stopped by a signal (SIGSTOP).
    private(set) var isInGroupStop = false
    /// A signal ends a wait for another stop, instead of being delivered. ``detach()`` delivers it.
    var endsWaitAtSignal = false
    private var undelivered: Int32 = 0

    private let process: Int32
    private let stopReader: StopReader
    /// The longest single wait. A thread in state D never stops.
    var timeout: Duration
    private var hasStopped = false
    /// How long it was stopped before it was let go for a while.
    private var earlierPause = Duration.zero
    /// The last time before the first stop at which the thread ran.
    private var lastSeenRunning = SuspendingClock.now

    /// An immediate stop comes within some microseconds.
    private static let spinning = Duration.microseconds(200)
    private static let pause: useconds_t = 100

    init(process: Int32, tid: Int32, timeout: Duration, procfs: ProcFS) {
        self.process = process
        self.tid = tid
        self.timeout = timeout
        stopReader = StopReader(process: process, procfs: procfs)
    }

    /// How long the thread has been stopped, give or take one poll.
    var pauseDuration: Duration { earlierPause + (hasStopped ? SuspendingClock.now - lastSeenRunning : .zero) }

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

    /// The counterpart of ``suspendSeccomp()``.
    func restoreSeccomp() throws(Errno) {
        try request(.setOptions, data: Options.always)
    }

    /// Fails for a thread that never stopped. The kernel detaches it when the thread that seized it ends (exit_ptrace).
    func detach() throws(Errno) {
        try request(.detach, data: UInt(undelivered))
    }

    private enum Options {
        static let always = UInt(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC)
        static let seccompSuspended = UInt(PTRACE_O_SUSPEND_SECCOMP)
    }

    struct Request: Equatable {
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
        static let peek = Request(PTRACE_PEEKDATA)
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

    func request(_ request: Request, address: UInt = 0, data: UInt = 0) throws(Errno) {
        guard state == .same || (state == .replaced && request.isForAnyProgram) else { throw .noSuchProcess }
        guard isStopped || request.isForRunning else { throw .resourceBusy }
        let status =
            request == .peek
            ? sockalive_peek(tid, address, UnsafeMutablePointer(bitPattern: data))
            : sockalive_ptrace(request.number, tid, address, data)
        if status == -ESRCH { state = .gone }
        if status < 0 { throw Errno(rawValue: -status) }
    }

    func request<Value: BitwiseCopyable>(
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
        undelivered = 0
    }

    /// Brings the thread to an event stop, from running or from another stop. A signal that ended a wait is delivered: the
    /// stop is before the first instruction of its handler.
    func interrupt() throws(Errno) {
        try request(.interrupt)
        if isStopped { try resume(.toAnyStop, deliver: undelivered) }
        try run(.toAnyStop, to: .event)
    }

    /// Runs the thread to the wanted stop. Other stops are passed on: a signal is delivered, and a group stop stays in
    /// effect, because detaching returns the thread to it.
    ///
    /// - Throws: `noSuchProcess` if the thread has ended or runs another program; `timedOut`; `interrupted` by a signal
    ///   that ``detach()`` delivers.
    func run(_ how: Resumption, to wanted: Stop) throws(Errno) {
        let end = SuspendingClock.now + timeout
        while true {
            let stop = try nextStop(before: end)
            if stop == wanted {
                hasStopped = true
                return
            }
            if case .signal(let number) = stop, endsWaitAtSignal {
                undelivered = number
                throw .interrupted
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

    /// Lets the thread run its own code, with its own signals, to the entry of its next system call. It is not held
    /// meanwhile, and a guard would be wrong: nothing of it is changed yet.
    ///
    /// - Throws: as ``run(_:to:)``; `resourceBusy` if the process is stopped by a signal: it must not run on.
    func runToOwnCall(within time: Duration) throws(Errno) {
        earlierPause = pauseDuration
        hasStopped = false
        let end = SuspendingClock.now + time
        try resume(.toSystemCall)
        while true {
            switch try nextStop(before: end) {
            case .systemCall:
                hasStopped = true
                return
            case .event where isInGroupStop:
                hasStopped = true
                throw .resourceBusy
            case .signal(let number): try resume(.toSystemCall, deliver: number)
            default: try resume(.toSystemCall)
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

    private func nextStop(before end: SuspendingClock.Instant) throws(Errno) -> Stop {
        let stop = try awaitStop(before: end)
        // get_signal makes event stops and signal stops. The thread may be detached there.
        isInSignalHandling = stop != .systemCall && stop != .exec
        if stop == .exec {
            state = .replaced
            throw .noSuchProcess
        }
        return stop
    }

    /// Polls for the next stop. Measured on a virtual machine with 2 CPUs, for a resume and the stop after it: yielding
    /// 5.7 us, blocking in waitid (which has no timeout) 6.9 us, spinning 9.2 us. Running on the thread's CPU makes no
    /// difference: the kernel wakes the thread on the idle CPU.
    private func awaitStop(before end: SuspendingClock.Instant) throws(Errno) -> Stop {
        guard state == .same else { throw .noSuchProcess }
        let start = SuspendingClock.now
        var now = start
        repeat {
            // This wait has an end of its own.
            WorkerProgress.enter(next: .stop)
            if !hasStopped { lastSeenRunning = now }
            let status = stopReader.status(of: tid)
            if status > 0 {
                isStopped = true
                isInGroupStop = Stop.isGroupStop(status)
                return Stop(status)
            }
            if status == -ECHILD { try followExec() } else if status < 0 { throw Errno(rawValue: -status) }
            now = SuspendingClock.now
            if now - start < Self.spinning { sched_yield() } else { usleep(Self.pause) }
        } while now < end
        throw .timedOut
    }

    /// No thread has this number any more. Either the thread has ended, or it is in execve(2) and has the process's
    /// number. In the second case, wait for that number.
    private func followExec() throws(Errno) {
        guard tid != process, stopReader.status(of: process) >= 0 else {
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

    /// An interrupt has SIGTRAP in place of the stopping signal (kernel/signal.c, do_jobctl_trap).
    fileprivate static func isGroupStop(_ status: Int32) -> Bool {
        status >> 8 == PTRACE_EVENT_STOP && status & 0xff != SIGTRAP
    }
}

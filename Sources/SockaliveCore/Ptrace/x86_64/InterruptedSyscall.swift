import CSockalive
import Glibc

/// How a stopped thread continues as if it had not been stopped, perhaps in a system call. Pure.
struct InterruptedSyscall {
    /// Registers with which the kernel's signal handling restarts the call.
    private(set) var kernelRestart: Registers
    /// Registers with which the thread itself repeats the call.
    private(set) var manualRestart: Registers

    /// The call would have returned EINTR, and is made again from its start.
    private(set) var isRepeated = false
    /// The thread itself cannot repeat the call, because its number is unknown.
    private(set) var isNumberUnknown = false

    private let instruction: Instruction?
    /// The call's number; nil if it is unknown.
    private let number: UInt64?

    /// - Parameters:
    ///   - found: the registers in a stop inside the kernel's signal handling.
    ///   - code: the seven bytes before the program counter, or the last two of them.
    init(found: Registers, code: [UInt8]) {
        kernelRestart = found
        manualRestart = found
        instruction = Instruction(Array(code.suffix(2)))
        number = instruction?.number(found.user.orig_rax, code)
        // -1 means "not in a call". rt_sigreturn sets the same.
        manualRestart.user.orig_rax = .max
        guard found.isInCall else { return }
        // ERESTARTNOHAND: restart, unless a handler runs; then EINTR. A real signal would have the same effect.
        isRepeated = result == -EINTR && isRepeatable
        if isRepeated || (usesRestartBlock && canRestartFromStart) {
            kernelRestart.user.rax = UInt64(bitPattern: Int64(Restart.noHandler))
            kernelRestart.user.orig_rax = number ?? found.user.orig_rax
        }
        switch result {
        // rt_sigreturn drops the restart block, so the sleep begins anew: it ends late, but correctly.
        case Restart.system, Restart.noInterruption, Restart.noHandler, Restart.block:
            manualRestart.user.rax = number ?? found.user.orig_rax
            manualRestart.user.rip &-= 2
            isNumberUnknown = number == nil
        default: break
        }
    }

    /// The interrupted call continues from the thread's restart block, which rt_sigreturn would drop.
    var usesRestartBlock: Bool { kernelRestart.isInCall && result == Restart.block }

    /// The same call from its start, without the block: it ends late, but correctly. nil if its number is unknown.
    var kernelRestartFromStart: Registers? {
        guard let number, !isNumberUnknown else { return nil }
        var registers = kernelRestart
        registers.user.rax = UInt64(bitPattern: Int64(Restart.noHandler))
        registers.user.orig_rax = number
        return registers
    }
    /// The result of a call that the kernel makes again from its start, unless a handler runs.
    static let restartFromStart = Restart.noHandler
    /// The same, and also if a handler runs that has SA_RESTART.
    static let restartInAnyCase = Restart.system

    private var result: Int32 { Int32(truncatingIfNeeded: kernelRestart.user.rax) }

    /// Results inside the kernel for interrupted calls (include/linux/errno.h). Programs never see them.
    private enum Restart {
        static let system: Int32 = -512
        static let noInterruption: Int32 = -513
        static let noHandler: Int32 = -514
        static let block: Int32 = -516
    }

    /// The instruction that made the call. sysenter counts as the second one: the vDSO has `int $0x80` at the restart
    /// address.
    private enum Instruction {
        case bits64, bits32

        init?(_ bytes: [UInt8]) {
            switch bytes {
            case [0x0f, 0x05]: self = .bits64
            case [0xcd, 0x80]: self = .bits32
            default: return nil
            }
        }

        /// A sleep that was stopped before is in restart_syscall(2), which continues from the restart block alone. The
        /// code before it may tell which call began it: the C libraries use `mov $number,%eax`.
        func number(_ found: UInt64, _ code: [UInt8]) -> UInt64? {
            let restart = self == .bits64 ? Syscall64.restartSyscall.rawValue : Syscall32.restartSyscall.rawValue
            guard found == restart else { return found }
            guard code.count == 7, code[0] == 0xb8 else { return nil }
            return code[1...4].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
    }

    /// Calls that return EINTR only because they were stopped. They have done nothing yet, so they can be repeated:
    /// signal(7), "Interruption of system calls ... by stop signals", and sockets with a timeout (sock_intr_errno).
    /// select, pselect and ppoll return it if the rest of their timeout cannot be written back: it lies in read-only
    /// memory, or the program's personality has STICKY_TIMEOUTS (fs/select.c, poll_select_finish).
    /// close is excluded, because it has closed the descriptor.
    private var isRepeatable: Bool {
        // An x32 call has the number of the 64-bit one and one more bit. Its thread is refused, and does not notice that.
        let number = kernelRestart.user.orig_rax & ~Registers.x32Call
        return switch instruction {
        case .bits64: Syscall64(rawValue: number).map(Self.repeatable64.contains) ?? false
        case .bits32: Syscall32(rawValue: number).map(Self.repeatable32.contains) ?? false
        case nil: false
        }
    }

    private static let repeatable64: [Syscall64] = [
        .read, .write, .readv, .writev, .recvfrom, .recvmsg, .recvmmsg, .sendto, .sendmsg, .sendmmsg, .sendfile,
        .splice, .accept, .accept4, .connect, .semop, .semtimedop, .rtSigtimedwait, .epollWait, .epollPwait,
        .epollPwait2, .ioGetevents, .ioPgetevents, .ioUringEnter, .preadv2, .pwritev2, .select, .pselect6, .ppoll,
    ]

    private static let repeatable32: [Syscall32] = [
        .read, .write, .readv, .writev, .socketcall, .ipc, .recvfrom, .recvmsg, .recvmmsg, .recvmmsgTime64,
        .sendto, .sendmsg, .sendmmsg, .sendfile, .sendfile64, .splice, .accept4, .connect, .semtimedopTime64,
        .rtSigtimedwait, .rtSigtimedwaitTime64, .epollWait, .epollPwait, .epollPwait2, .ioGetevents,
        .ioPgetevents, .ioPgeteventsTime64, .ioUringEnter, .preadv2, .pwritev2, .oldSelect, .newselect,
        .pselect6, .pselect6Time64, .ppoll, .ppollTime64,
    ]

    /// The call has replaced the thread's signal mask until its end, and is made again from its start.
    var replacesMask: Bool {
        guard kernelRestart.isInCall, result == Restart.noHandler else { return false }
        let number = kernelRestart.user.orig_rax
        return switch instruction {
        case .bits64: Syscall64(rawValue: number).map(Self.replacing64.contains) ?? false
        case .bits32: Syscall32(rawValue: number).map(Self.replacing32.contains) ?? false
        case nil: false
        }
    }

    private static let replacing64: [Syscall64] = [
        .ppoll, .pselect6, .rtSigsuspend, .epollPwait, .epollPwait2, .ioPgetevents,
    ]

    private static let replacing32: [Syscall32] = [
        .ppoll, .ppollTime64, .pselect6, .pselect6Time64, .sigsuspend, .rtSigsuspend, .epollPwait, .epollPwait2,
        .ioPgetevents, .ioPgeteventsTime64,
    ]

    /// Calls with a restart block that have the same effect if repeated: no timeout, or an absolute one.
    private var canRestartFromStart: Bool {
        let user = kernelRestart.user
        guard let instruction, let number else { return false }
        switch instruction {
        case .bits64:
            switch Syscall64(rawValue: number) {
            case .poll: return Int32(truncatingIfNeeded: user.rdx) < 0
            case .futex: return Self.isBitsetWait(user.rsi)
            default: return false
            }
        case .bits32:
            switch Syscall32(rawValue: number) {
            case .poll: return Int32(truncatingIfNeeded: user.rdx) < 0
            case .futex, .futexTime64: return Self.isBitsetWait(user.rcx)
            default: return false
            }
        }
    }

    /// FUTEX_WAIT_BITSET with any flags.
    private static func isBitsetWait(_ operation: UInt64) -> Bool {
        Int32(truncatingIfNeeded: operation) & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME) == FUTEX_WAIT_BITSET
    }
}

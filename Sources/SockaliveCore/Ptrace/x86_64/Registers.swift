import CSockalive
import Glibc

/// The general registers of a stopped thread on x86-64, in 64-bit and in 32-bit mode. Pure.
///
/// The target chooses their values: all arithmetic on them wraps.
///
/// This folder is what another architecture has to bring: the registers and their requests, the signal frame, the
/// extended registers (``XSaveArea``), the gadgets, the rules by which an interrupted call goes on, and the calls'
/// numbers.
struct Registers {
    var user = sockalive_registers()

    /// The requests of ptrace(2) that read and write them.
    static let getRequest = PTRACE_GETREGS
    static let setRequest = PTRACE_SETREGS

    /// `__USER_CS` and `__USER32_CS`; another code segment (an LDT's) is a mode of its own.
    private static let codeSegments: (bits64: UInt64, bits32: UInt64) = (0x33, 0x23)
    private static let x32Call: UInt64 = 0x4000_0000
    /// System V ABI: the 128 bytes below rsp belong to the function that runs; not in i386.
    private static let redZone: UInt64 = 128
    /// A single step would turn a call into a SIGTRAP.
    private static let trapFlag: UInt64 = 0x100
    private static let directionFlag: UInt64 = 0x400

    /// A mode in which remote calls can be made.
    func isSupported(is32Bit: Bool) -> Bool {
        guard user.cs == (is32Bit ? Self.codeSegments.bits32 : Self.codeSegments.bits64) else { return false }
        return !isInCall || user.orig_rax & Self.x32Call == 0
    }

    /// The thread was stopped in a system call: its number is not negative.
    var isInCall: Bool { Int32(truncatingIfNeeded: user.orig_rax) >= 0 }

    var stackPointer: UInt64 { user.rsp }
    var instructionPointer: UInt64 { user.rip }

    /// At the entry of a system call: the kernel makes none.
    mutating func skipCall() { user.orig_rax = .max }

    /// The thread's own block; 0: none.
    func threadPointer(is32Bit: Bool) -> UInt64 { is32Bit ? user.gs_base : user.fs_base }

    /// The highest address below the stack pointer at which the thread itself keeps nothing, aligned to 64.
    func freeStack(is32Bit: Bool) -> UInt64 {
        (user.rsp &- (is32Bit ? 0 : Self.redZone)) & ~63
    }

    /// Where the kernel would have aborted a restartable sequence there the thread goes on.
    mutating func abort(_ sequence: RestartableSequence) {
        if user.rip &- sequence.start < sequence.size { user.rip = sequence.abort }
    }

    /// Those of one system call at the instruction itself.
    ///
    /// - Parameter array: where the arguments of socketcall(2) lie; nil makes a socket call by its own number.
    mutating func prepare(_ call: RemoteSyscall, at instruction: UInt64, is32Bit: Bool, stack: UInt64, array: UInt64?) {
        if is32Bit { load32(call, array: array) } else { load64(call) }
        user.rip = instruction
        user.rsp = stack
        // Or the kernel takes rax for an interrupted call's result and backs rip up.
        user.orig_rax = .max
        user.eflags &= ~(Self.trapFlag | Self.directionFlag)
    }

    /// The system call that these registers make, as the kernel takes it.
    func entry(is32Bit: Bool) -> SyscallEntry {
        let arguments =
            is32Bit
            ? [user.rbx, user.rcx, user.rdx, user.rsi, user.rdi, user.rbp].map { $0 & UInt64(UInt32.max) }
            : [user.rdi, user.rsi, user.rdx, user.r10, user.r8, user.r9]
        return SyscallEntry(
            is32Bit: is32Bit, number: user.rax, arguments: arguments, instructionPointer: user.rip &+ 2,
            stackPointer: user.rsp)
    }

    /// Does ptrace(2) show, at the entry of a system call, the very call that `wanted` was prepared for? Its number,
    /// all six arguments, where it was made and on which stack. The two instructions are two bytes long. The kernel
    /// puts -ENOSYS into rax there (arch/x86/entry/entry_64.S), which tells an entry from the exit of a like call.
    func isEntry(of wanted: Registers, is32Bit: Bool) -> Bool {
        func call(_ user: sockalive_registers, _ number: UInt64, at place: UInt64) -> [UInt64] {
            is32Bit
                ? [number, user.rbx, user.rcx, user.rdx, user.rsi, user.rdi, user.rbp, place, user.rsp]
                    .map { $0 & UInt64(UInt32.max) }
                : [number, user.rdi, user.rsi, user.rdx, user.r10, user.r8, user.r9, place, user.rsp]
        }
        return user.cs == wanted.user.cs && Int32(truncatingIfNeeded: user.rax) == -ENOSYS
            && call(user, user.orig_rax, at: user.rip)
                == call(wanted.user, wanted.user.rax, at: wanted.user.rip &+ 2)
    }

    /// rbx is what the i386 table would take for the first argument. It never is the first argument: `int $0x80` in
    /// place of `syscall` makes another call of the same number, and shows another argument.
    private mutating func load64(_ call: RemoteSyscall) {
        user.rbx = ~call[0]
        user.rax = call.kind.number64
        (user.rdi, user.rsi, user.rdx) = (call[0], call[1], call[2])
        (user.r10, user.r8, user.r9) = (call[3], call[4], call[5])
    }

    private mutating func load32(_ call: RemoteSyscall, array: UInt64?) {
        func word(_ index: Int) -> UInt64 { UInt64(UInt32(truncatingIfNeeded: call[index])) }
        if let array, let sub = call.kind.number32.sub {
            user.rax = call.kind.number32.number
            (user.rbx, user.rcx) = (sub, array)
        } else {
            user.rax = call.kind.directNumber32
            (user.rbx, user.rcx) = (word(0), word(1))
        }
        (user.rdx, user.rsi, user.rdi, user.rbp) = (word(2), word(3), word(4), word(5))
    }

    /// What a system call returned that has just ended; in 32-bit mode eax alone counts, and it may be an address.
    func result(is32Bit: Bool) -> SyscallResult {
        is32Bit ? SyscallResult(UInt32(truncatingIfNeeded: user.rax)) : SyscallResult(user.rax)
    }
}

/// A system call at its entry: which table its number is taken from, and with which arguments. Pure.
struct SyscallEntry: Equatable {
    let is32Bit: Bool
    let number: UInt64
    let arguments: [UInt64]
    let instructionPointer: UInt64
    let stackPointer: UInt64
}

extension SyscallEntry {
    /// nil for an architecture that is neither.
    init?(_ info: sockalive_syscall_entry) {
        guard info.arch == SOCKALIVE_ARCH_X86_64.rawValue || info.arch == SOCKALIVE_ARCH_I386.rawValue else {
            return nil
        }
        let all = info.arguments
        self.init(
            is32Bit: info.arch == SOCKALIVE_ARCH_I386.rawValue, number: info.number,
            arguments: [all.0, all.1, all.2, all.3, all.4, all.5], instructionPointer: info.instruction_pointer,
            stackPointer: info.stack_pointer)
    }

    /// What `/proc/PID/task/TID/syscall` shows of a call that a thread is stopped at (proc_pid_syscall(5)): number,
    /// six arguments, stack pointer, instruction pointer. Of which table it does not say, but the arguments are those
    /// of the table that the kernel takes.
    func isShown(by text: [UInt8]) -> Bool {
        let words = text.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }
        guard words.count == 9, words[0].decimal() == number else { return false }
        let numbers = words[1...].map { $0.dropFirst(2).hexadecimal(UInt64.self) }
        return numbers == arguments + [stackPointer, instructionPointer]
    }
}

/// A critical section of rseq(2) (linux/rseq.h, struct rseq_cs).
struct RestartableSequence {
    let start, size, abort: UInt64
}

/// A signal frame from which rt_sigreturn loads registers, signal mask and XSAVE area (asm/ucontext.h,
/// arch/x86/include/asm/sigframe.h), with the address of an rt_sigreturn sequence in front. Pure.
///
/// A call whose stack pointer is the frame's address falls into it when its `ret` is reached.
struct SignalFrame {
    /// Of a frame with what stands before it, rounded up.
    static let room = 320

    let registers: Registers
    /// Blocked signals: bit n - 1 is signal n.
    let mask: UInt64
    /// Where the XSAVE area lies in the target.
    let xsave: UInt64

    /// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS; the last two are not known to i386.
    private static let flags: (bits64: UInt64, bits32: UInt32) = (7, 1)
    /// do_sigaltstack refuses it, and rt_sigreturn takes no notice: the alternate stack stays what it is.
    private static let noSuchMode: UInt8 = 4

    /// - Parameter bytes: ``room`` of them.
    func write(to bytes: UnsafeMutableRawBufferPointer, for gadgets: SyscallGadgets) {
        let back = gadgets.sigreturn?.address ?? 0
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        if gadgets.is32Bit {
            let rest = UnsafeMutableRawBufferPointer(rebasing: bytes[(Int(gadgets.skipped) * 4)...])
            words32(back).withUnsafeBytes { rest.copyMemory(from: $0) }
        } else {
            words64(back).withUnsafeBytes { bytes.copyMemory(from: $0) }
        }
    }

    /// rt_sigreturn takes the frame to begin one word below the stack pointer: there stands the way back.
    func words64(_ back: UInt64) -> [UInt64] {
        let user = registers.user
        let segments = user.cs & 0xffff | (user.ss & 0xffff) << 48
        return [
            back, Self.flags.bits64, 0, 0, UInt64(Self.noSuchMode), 0,  // flags, link, alternate stack
            user.r8, user.r9, user.r10, user.r11, user.r12, user.r13, user.r14, user.r15,
            user.rdi, user.rsi, user.rbp, user.rbx, user.rdx, user.rax, user.rcx, user.rsp, user.rip, user.eflags,
            segments, 0, 0, 0, 0,  // cs, gs, fs, ss; error, trap, old mask, cr2
            xsave, 0, 0, 0, 0, 0, 0, 0, 0, mask,
        ]
    }

    func words32(_ back: UInt64) -> [UInt32] {
        let user = registers.user
        func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
        func segment(_ value: UInt64) -> UInt32 { low(value & 0xffff) }
        let head = [low(back), 0, 0, 0] + [UInt32](repeating: 0, count: 32)  // signal, two pointers, siginfo
        let context = [
            Self.flags.bits32, 0, 0, UInt32(Self.noSuchMode), 0,
            segment(user.gs), segment(user.fs), segment(user.es), segment(user.ds),
            low(user.rdi), low(user.rsi), low(user.rbp), low(user.rsp), low(user.rbx), low(user.rdx), low(user.rcx),
            low(user.rax), 0, 0, low(user.rip), segment(user.cs), low(user.eflags), 0, segment(user.ss),
        ]
        return head + context + [low(xsave), 0, 0, low(mask), low(mask >> 32)]
    }
}

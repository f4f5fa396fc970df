import CSockalive
import Glibc

/// The general registers of a stopped thread on x86-64, in 64-bit and in 32-bit mode. Pure.
///
/// The target chooses the values, so all arithmetic on them wraps.
///
/// A port to another architecture replaces this folder: the registers and their requests, the signal frame, the
/// extended registers (``XSaveArea``), the gadgets, the restart of an interrupted call, and the call numbers.
struct Registers {
    var user = sockalive_registers()

    /// The ptrace(2) requests for these registers.
    static let getRequest = PTRACE_GETREGS
    static let setRequest = PTRACE_SETREGS

    /// `__USER_CS` and `__USER32_CS`. Another code segment (of an LDT) is not supported.
    private static let codeSegments: (bits64: UInt64, bits32: UInt64) = (0x33, 0x23)
    static let x32Call: UInt64 = 0x4000_0000
    /// System V ABI: the 128 bytes below rsp belong to the current function. i386 has no red zone.
    private static let redZone: UInt64 = 128
    /// Cleared, because a single step would cause a SIGTRAP instead of the call.
    private static let trapFlag: UInt64 = 0x100
    private static let directionFlag: UInt64 = 0x400

    /// Whether remote calls are possible in this mode.
    func isSupported(is32Bit: Bool) -> Bool {
        guard user.cs == (is32Bit ? Self.codeSegments.bits32 : Self.codeSegments.bits64) else { return false }
        return !isInCall || user.orig_rax & Self.x32Call == 0
    }

    /// Whether the thread was stopped in a system call: then the number is not negative.
    var isInCall: Bool { Int32(truncatingIfNeeded: user.orig_rax) >= 0 }

    var stackPointer: UInt64 { user.rsp }
    var instructionPointer: UInt64 { user.rip }

    /// At the entry of a system call, makes the kernel skip it.
    mutating func skipCall() { user.orig_rax = .max }

    /// The address of the thread's control block; 0: none.
    func threadPointer(is32Bit: Bool) -> UInt64 { is32Bit ? user.gs_base : user.fs_base }

    /// The highest address below the stack pointer at which the thread itself stores nothing, aligned to 64.
    func freeStack(is32Bit: Bool) -> UInt64 {
        (user.rsp &- (is32Bit ? 0 : Self.redZone)) & ~63
    }

    /// If the thread is in the sequence, it continues at the sequence's abort address, as the kernel would do.
    mutating func abort(_ sequence: RestartableSequence) {
        if user.rip &- sequence.start < sequence.size { user.rip = sequence.abort }
    }

    /// Sets the registers for one system call, with the program counter at the instruction.
    ///
    /// - Parameter array: the address of the arguments of socketcall(2). nil uses the socket call's own number.
    mutating func prepare(_ call: RemoteSyscall, at instruction: UInt64, is32Bit: Bool, stack: UInt64, array: UInt64?) {
        if is32Bit { load32(call, array: array) } else { load64(call) }
        user.rip = instruction
        user.rsp = stack
        // Otherwise the kernel takes rax as the result of an interrupted call and moves rip back.
        user.orig_rax = .max
        user.eflags &= ~(Self.trapFlag | Self.directionFlag)
    }

    /// The system call that these registers make, as the kernel sees it.
    func entry(is32Bit: Bool) -> SyscallEntry {
        let arguments =
            is32Bit
            ? [user.rbx, user.rcx, user.rdx, user.rsi, user.rdi, user.rbp].map { $0 & UInt64(UInt32.max) }
            : [user.rdi, user.rsi, user.rdx, user.r10, user.r8, user.r9]
        return SyscallEntry(
            is32Bit: is32Bit, number: user.rax, arguments: arguments, instructionPointer: user.rip &+ 2,
            stackPointer: user.rsp)
    }

    /// Whether ptrace(2) shows, at the entry of a system call, exactly the call that `wanted` describes: its number,
    /// all six arguments, its address and stack pointer. Both call instructions are two bytes long. At an entry the
    /// kernel sets rax to -ENOSYS (arch/x86/entry/entry_64.S). This distinguishes an entry from the exit of an equal
    /// call.
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

    /// The i386 table would take rbx as the first argument, so rbx gets a different value. If the target puts `int
    /// $0x80` in place of `syscall`, another call of the same number results, and it shows another argument.
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

    /// The result of a system call that has just ended. In 32-bit mode only eax counts, and it may be an address.
    func result(is32Bit: Bool) -> SyscallResult {
        is32Bit ? SyscallResult(UInt32(truncatingIfNeeded: user.rax)) : SyscallResult(user.rax)
    }
}

/// A system call at its entry: table, number and arguments. Pure.
struct SyscallEntry: Equatable {
    let is32Bit: Bool
    let number: UInt64
    let arguments: [UInt64]
    let instructionPointer: UInt64
    let stackPointer: UInt64
}

extension SyscallEntry {
    /// nil for any other architecture.
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

    /// Whether `/proc/PID/task/TID/syscall` shows this call for a stopped thread (proc_pid_syscall(5)): number, six
    /// arguments, stack pointer, instruction pointer. The file does not show the table, but its arguments are read by
    /// the rules of that table.
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

/// A signal frame from which rt_sigreturn restores registers, signal mask and XSAVE area (asm/ucontext.h,
/// arch/x86/include/asm/sigframe.h), with the address of an rt_sigreturn gadget before it. Pure.
///
/// A call whose stack pointer is the frame's address returns into it by its `ret`.
struct SignalFrame {
    /// The size of a frame and the address before it, rounded up.
    static let room = 320

    let registers: Registers
    /// The blocked signals: bit n - 1 is signal n.
    let mask: UInt64
    /// The address of the XSAVE area in the target.
    let xsave: UInt64

    /// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS. i386 has only the first.
    private static let flags: (bits64: UInt64, bits32: UInt32) = (7, 1)
    /// do_sigaltstack rejects this mode and rt_sigreturn ignores the error, so the alternate stack stays unchanged.
    private static let noSuchMode: UInt8 = 4

    /// - Parameter bytes: ``room`` bytes.
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

    /// rt_sigreturn expects the frame one word below the stack pointer. That word is the return address.
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

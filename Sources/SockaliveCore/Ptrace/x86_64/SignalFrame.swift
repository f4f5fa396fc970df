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

import CSockalive
import Glibc
import SystemPackage
import Testing

@testable import SockaliveCore

private func registers(call number: Int64, result: Int64, at address: UInt64 = 0x5000) -> Registers {
    var registers = Registers()
    registers.user.orig_rax = UInt64(bitPattern: number)
    registers.user.rax = UInt64(bitPattern: result)
    registers.user.rip = address
    return registers
}

@Suite struct InterruptedSyscallTests {
    private static let syscall: [UInt8] = [0x0f, 0x05]
    private static let interrupt: [UInt8] = [0xcd, 0x80]

    @Test func `a thread outside a call continues where it was`() {
        let found = registers(call: -1, result: -512)
        let call = InterruptedSyscall(found: found, code: Self.syscall)
        #expect(call.kernelRestart.user.rax == found.user.rax && call.manualRestart.user.rax == found.user.rax)
        #expect(call.manualRestart.user.rip == 0x5000 && !call.usesRestartBlock)
    }

    @Test(arguments: [-512, -513, -514, -516] as [Int64])
    func `a call that the kernel would restart is repeated in both ways`(code: Int64) {
        let call = InterruptedSyscall(found: registers(call: 45, result: code), code: Self.syscall)
        #expect(call.kernelRestart.user.rax == UInt64(bitPattern: code) && call.kernelRestart.user.rip == 0x5000)
        #expect(call.kernelRestart.user.orig_rax == 45)
        #expect(call.manualRestart.user.rax == 45 && call.manualRestart.user.rip == 0x4ffe)
        #expect(call.manualRestart.user.orig_rax == .max)
        #expect(call.usesRestartBlock == (code == -516))
    }

    /// epoll_wait returns EINTR because it was stopped. close has closed the descriptor, and may not be repeated.
    @Test(
        arguments: [
            (232, true), (45, true), (3, false), (35, false), (327, true), (23, true), (270, true), (271, true),
            (7, false),
        ] as [(Int64, Bool)])
    func `EINTR is undone only if the call has done nothing`(number: Int64, isRepeated: Bool) {
        let call = InterruptedSyscall(
            found: registers(call: number, result: Int64(-EINTR)), code: Self.syscall)
        #expect(call.kernelRestart.user.rax == UInt64(bitPattern: isRepeated ? -514 : Int64(-EINTR)))
        #expect(call.manualRestart.user.rip == (isRepeated ? 0x4ffe : 0x5000))
        #expect(call.isRepeated == isRepeated)
    }

    /// 45 is recvfrom for x86-64 and brk for i386.
    @Test func `the instruction decides what a call number means`() {
        let found = registers(call: 45, result: Int64(-EINTR))
        let repeated = UInt64(bitPattern: -514)
        #expect(InterruptedSyscall(found: found, code: Self.syscall).kernelRestart.user.rax == repeated)
        #expect(InterruptedSyscall(found: found, code: Self.interrupt).kernelRestart.user.rax == found.user.rax)
        #expect(InterruptedSyscall(found: found, code: [0x90, 0x90]).kernelRestart.user.rax == found.user.rax)
        let socketcall = registers(call: 102, result: Int64(UInt32(bitPattern: -EINTR)))
        #expect(InterruptedSyscall(found: socketcall, code: Self.interrupt).kernelRestart.user.rax == repeated)
    }

    @Test func `a sleep without a timeout needs no restart block`() {
        var poll = registers(call: 7, result: -516)
        poll.user.rdx = 5000
        #expect(InterruptedSyscall(found: poll, code: Self.syscall).usesRestartBlock)
        poll.user.rdx = UInt64(UInt32.max)
        #expect(!InterruptedSyscall(found: poll, code: Self.syscall).usesRestartBlock)
        var futex = registers(call: 202, result: -516)
        futex.user.rsi = 0x80 | 9  // FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG
        #expect(!InterruptedSyscall(found: futex, code: Self.syscall).usesRestartBlock)
        futex.user.rsi = 0x80
        #expect(InterruptedSyscall(found: futex, code: Self.syscall).usesRestartBlock)
    }

    /// After a first stop the kernel uses restart_syscall, 219, whose block rt_sigreturn drops. Then only the call
    /// itself can be repeated, and its number may be in the code before the instruction.
    @Test func `the code identifies a sleep that was restarted before`() {
        let poll: [UInt8] = [0xb8, 7, 0, 0, 0] + Self.syscall
        var found = registers(call: 219, result: -516)
        found.user.rdx = 5000
        let finite = InterruptedSyscall(found: found, code: poll)
        #expect(
            finite.manualRestart.user.rax == 7 && finite.manualRestart.user.rip == 0x4ffe && !finite.isNumberUnknown)
        #expect(finite.usesRestartBlock && finite.kernelRestart.user.orig_rax == 219)
        found.user.rdx = .max
        let endless = InterruptedSyscall(found: found, code: poll)
        #expect(
            !endless.usesRestartBlock && endless.kernelRestart.user.orig_rax == 7 && endless.manualRestart.user.rax == 7
        )
        for unknown in [[0xbf, 7, 0, 0, 0] + Self.syscall, Self.syscall] {
            let call = InterruptedSyscall(found: found, code: unknown)
            #expect(call.isNumberUnknown && call.usesRestartBlock && call.kernelRestart.user.orig_rax == 219)
        }
        let old = InterruptedSyscall(found: registers(call: 0, result: -516), code: Self.interrupt)
        #expect(old.isNumberUnknown)
        #expect(!InterruptedSyscall(found: registers(call: 0, result: -512), code: Self.syscall).isNumberUnknown)
    }

    /// 271 is ppoll and 72 is sigsuspend of i386, and fcntl of x86-64.
    @Test(arguments: [
        (271, -514, true), (281, -4, true), (271, -4, true), (45, -4, false), (7, -514, false), (72, -514, false),
    ])
    func `a call that has replaced the signal mask is known`(number: Int64, result: Int64, replaces: Bool) {
        let call = InterruptedSyscall(found: registers(call: number, result: result), code: Self.syscall)
        #expect(call.replacesMask == replaces)
        let old = InterruptedSyscall(found: registers(call: 72, result: -514), code: Self.interrupt)
        #expect(old.replacesMask)
    }

    /// Its thread is refused, and does not notice that it was stopped.
    @Test func `EINTR is undone for x32, too`() {
        let call = InterruptedSyscall(
            found: registers(call: 0x4000_0000 | 232, result: Int64(-EINTR)), code: Self.syscall)
        #expect(call.kernelRestart.user.rax == UInt64(bitPattern: -514))
        #expect(call.kernelRestart.user.orig_rax == 0x4000_0000 | 232)
    }

    /// For example, an mmap that has just returned the address 0x80000000.
    @Test(arguments: [0x8000_0000, Int64.min, .max, 0])
    func `every register value is handled`(result: Int64) {
        let call = InterruptedSyscall(found: registers(call: 9, result: result, at: 1), code: Self.syscall)
        #expect(call.kernelRestart.user.rax == UInt64(bitPattern: result) && call.manualRestart.user.rip == 1)
    }
}

@Suite struct RegistersTests {
    @Test func `unknown modes are not supported`() {
        var registers = registers(call: -1, result: 0)
        registers.user.cs = 0x33
        #expect(registers.isSupported(is32Bit: false) && !registers.isSupported(is32Bit: true))
        registers.user.orig_rax = 0x4000_0000 | 45  // x32
        #expect(!registers.isSupported(is32Bit: false))
        registers = SockaliveCoreTests.registers(call: 3, result: 0)
        registers.user.cs = 0x23
        #expect(!registers.isSupported(is32Bit: false) && registers.isSupported(is32Bit: true))
        registers.user.cs = 0x07
        #expect(!registers.isSupported(is32Bit: false) && !registers.isSupported(is32Bit: true))
    }

    @Test func `a restartable sequence is aborted only if the thread is in it`() {
        let sequence = RestartableSequence(start: 0x1000, size: 16, abort: 0x9000)
        for (place, isInside) in [(0x1000, true), (0x100f, true), (0x1010, false), (0xfff, false)] {
            var registers = registers(call: -1, result: 0, at: UInt64(place))
            registers.abort(sequence)
            #expect(registers.user.rip == (isInside ? 0x9000 : UInt64(place)))
        }
        var wild = registers(call: -1, result: 0, at: 0)
        wild.abort(RestartableSequence(start: .max, size: .max, abort: 1))
        #expect(wild.user.rip == 1)
    }

    @Test func `a socket call of a 32-bit program reads its arguments from memory`() {
        let call = RemoteSyscall(.setsockopt, on: 5, 1, 9, 0x1234_5678, 4)
        var registers = registers(call: 3, result: -512)
        registers.user.eflags = 0x746
        registers.prepare(call, at: 0x7000, is32Bit: true, stack: 0x8000, array: 0x8800)
        #expect(registers.user.rax == 102 && registers.user.rbx == 14 && registers.user.rcx == 0x8800)
        #expect(registers.user.rip == 0x7000 && registers.user.rsp == 0x8000 && registers.user.orig_rax == .max)
        #expect(registers.user.eflags == 0x246)  // neither single steps nor strings read backwards
        #expect(call.words == [5, 1, 9, 0x1234_5678, 4])
        registers.prepare(call, at: 0x7000, is32Bit: true, stack: 0x8000, array: nil)
        #expect(registers.user.rax == 366 && registers.user.rbx == 5 && registers.user.rsi == 0x1234_5678)
        registers.prepare(RemoteSyscall(.close, on: -1), at: 0x7000, is32Bit: true, stack: 0x8000, array: 0)
        #expect(registers.user.rax == 6 && registers.user.rbx == 0xffff_ffff && registers.user.rcx == 0)
    }

    /// Every part of a call that another thread could change, by the code or the stack.
    @Test(arguments: [true, false]) func `at its entry a call is compared with the prepared one`(
        is32Bit: Bool
    ) {
        var wanted = registers(call: 3, result: -512)
        wanted.user.cs = is32Bit ? 0x23 : 0x33
        let call = RemoteSyscall(.setsockopt, on: 5, 1, 9, 0x1234_5678, 4)
        wanted.prepare(call, at: 0x7000, is32Bit: is32Bit, stack: 0x8000, array: nil)
        var entry = wanted
        entry.user.orig_rax = wanted.user.rax
        entry.user.rax = UInt64(bitPattern: Int64(-ENOSYS))
        entry.user.rip = 0x7002
        #expect(entry.isEntry(of: wanted, is32Bit: is32Bit))
        let shared: [WritableKeyPath<sockalive_registers, UInt64>] = [
            \.orig_rax, \.rip, \.rsp, \.cs, \.rdi, \.rsi, \.rdx,
        ]
        let others: [WritableKeyPath<sockalive_registers, UInt64>] =
            is32Bit ? [\.rbx, \.rcx, \.rbp] : [\.r10, \.r8, \.r9]
        for register in shared + others {
            var other = entry
            other.user[keyPath: register] ^= 2
            #expect(!other.isEntry(of: wanted, is32Bit: is32Bit), "\(register)")
        }
        var exit = entry
        exit.user.rax = 0
        #expect(!exit.isEntry(of: wanted, is32Bit: is32Bit))
        // Registers that a system call itself changes do not matter.
        entry.user.r11 ^= 2
        entry.user.eflags ^= 2
        #expect(entry.isEntry(of: wanted, is32Bit: is32Bit))
    }

    @Test func `results and errors are distinguished in both modes`() {
        var registers = Registers()
        registers.user.rax = 0xffff_fff7
        #expect(registers.result(is32Bit: true) == .error(.badFileDescriptor))
        #expect(registers.result(is32Bit: false) == .value(0xffff_fff7))
        registers.user.rax = 0xf7d0_0000
        #expect(registers.result(is32Bit: true) == .value(0xf7d0_0000))
        registers.user.rax = UInt64(bitPattern: -9)
        #expect(registers.result(is32Bit: false) == .error(.badFileDescriptor))
        registers.user.rax = UInt64(bitPattern: -4096)
        #expect(registers.result(is32Bit: false) == .value(UInt64(bitPattern: -4096)))
    }
}

@Suite struct SignalFrameTests {
    private func gadgets(is32Bit: Bool) -> SyscallGadgets {
        var gadgets = SyscallGadgets(is32Bit: is32Bit)
        let bytes: [UInt8] =
            is32Bit
            ? [0xcd, 0x80, 0x5d, 0x5a, 0x59, 0xc3, 0xb8, 0xad, 0, 0, 0, 0xcd, 0x80]
            : [0x0f, 0x05, 0xc3, 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]
        bytes.withUnsafeBytes { gadgets.search($0, at: 0x1000) }
        return gadgets
    }

    private func frame(is32Bit: Bool) -> [UInt8] {
        var registers = registers(call: -1, result: 0x77, at: 0x6000)
        (registers.user.cs, registers.user.ss, registers.user.rsp) = (0x33, 0x2b, 0x8080)
        let frame = SignalFrame(registers: registers, mask: 0x1122_3344_5566_7788, xsave: 0x9000)
        var bytes = [UInt8](repeating: 0xff, count: SignalFrame.room)
        bytes.withUnsafeMutableBytes { frame.write(to: $0, for: gadgets(is32Bit: is32Bit)) }
        return bytes
    }

    /// After the return address is a ucontext: five words, then the general registers in glibc's order (REG_RAX is 13).
    @Test func `a 64-bit frame is a ucontext after a return address`() {
        let frame = frame(is32Bit: false)
        frame.withUnsafeBytes { bytes in
            func word(_ offset: Int) -> UInt64 { bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
            func register(_ index: Int) -> UInt64 { word(8 + 40 + 8 * index) }
            #expect(word(0) == 0x1003)
            #expect(register(13) == 0x77 && register(15) == 0x8080 && register(16) == 0x6000)
            #expect(register(18) == 0x002b_0000_0000_0033)
            #expect(register(23) == 0x9000)
            #expect(word(8 + 296) == 0x1122_3344_5566_7788)
        }
    }

    @Test func `a 32-bit frame leaves room for the words that are popped before the ret`() {
        let frame = frame(is32Bit: true)
        frame.withUnsafeBytes { bytes in
            func word(_ offset: Int) -> UInt32 { bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
            #expect([word(0), word(4), word(8), word(12)] == [0, 0, 0, 0x1006])
            let context = 12 + 4 * 4 + 128 + 20  // popped words, return address and arguments, siginfo, ucontext's head
            #expect(word(context + 44) == 0x77 && word(context + 56) == 0x6000 && word(context + 28) == 0x8080)
            #expect(word(context + 76) == 0x9000)
            #expect(word(context + 88) == 0x5566_7788 && word(context + 92) == 0x1122_3344)
        }
    }
}

@Suite struct ScratchAreaTests {
    private static let main: Range<UInt64> = 0x7ffd_1000_0000..<0x7ffd_1002_1000
    private static let thread: Range<UInt64> = 0x7f10_a080_1000..<0x7f10_a100_1000

    private func target(tid: Int32 = 7, is32Bit: Bool = false) throws -> RemoteTarget {
        RemoteTarget(
            procfs: try ProcFS(), holder: SocketHolder(pid: 7, fd: 5), inode: 1, tid: tid,
            gadgets: SyscallGadgets(is32Bit: is32Bit), status: try #require(ProcessStatus("Uid: 0 0 0 0".utf8)),
            stacks: [
                MemoryMap.Stack(span: Self.thread, isMain: false), MemoryMap.Stack(span: Self.main, isMain: true),
            ], spareDescriptor: 100, rights: OwnRights(procfs: try ProcFS()))
    }

    private func registers(stack: UInt64, thread: UInt64 = 0) -> Registers {
        var registers = Registers()
        (registers.user.rsp, registers.user.fs_base) = (stack, thread)
        return registers
    }

    @Test func `the red zone is not used, and 32-bit programs have none`() throws {
        let top = Self.main.upperBound - 0x1000
        #expect(try target().stackAddress(below: registers(stack: top), size: 0x1000) == top - 0x1000 - 128)
        #expect(try target(is32Bit: true).stackAddress(below: registers(stack: top), size: 0x1000) == top - 0x1000)
        let odd = try #require(try target().stackAddress(below: registers(stack: top - 7), size: 1000))
        #expect(odd % 64 == 0 && odd + 1000 <= top - 7 - 128)
    }

    @Test func `a stack is the thread's own only if its control block is at the end`() throws {
        let end = Self.thread.upperBound
        let stack = registers(stack: end - 0x10000, thread: end - 0x900)
        #expect(try target().stackAddress(below: stack, size: 0x1000) != nil)
        for block in [end - 0x2001, end + 1, 0, end - 0x20000, .max] {
            let stranger = registers(stack: end - 0x10000, thread: block)
            #expect(try target().stackAddress(below: stranger, size: 0x1000) == nil)
        }
        let beyond = registers(stack: end - 0x100, thread: end - 0x1000)
        #expect(try target().stackAddress(below: beyond, size: 0x1000) == nil)
    }

    @Test func `without room, or outside all stacks, there is no place`() throws {
        let start = Self.main.lowerBound
        #expect(try target().stackAddress(below: registers(stack: start + 0x1000 + 128), size: 0x1000) == nil)
        #expect(try target().stackAddress(below: registers(stack: start + 0x1000 + 192), size: 0x1000) == start + 64)
        for pointer in [0, 1, 127, 128, start, .max, Self.thread.upperBound + 0x1000] {
            #expect(try target().stackAddress(below: registers(stack: pointer), size: 0x1000) == nil)
        }
    }

    @Test func `the main stack's bottom is used only for its own thread on another stack`() throws {
        let elsewhere = registers(stack: 0x55d0_0000_0000)
        #expect(try target().unusedStackAddress(besides: elsewhere, size: 0x1000) == Self.main.lowerBound)
        #expect(try target(tid: 8).unusedStackAddress(besides: elsewhere, size: 0x1000) == nil)
        #expect(try target().unusedStackAddress(besides: registers(stack: Self.main.lowerBound), size: 0x1000) == nil)
        #expect(try target().unusedStackAddress(besides: registers(stack: Self.main.upperBound), size: 0x1000) == nil)
        #expect(try target().unusedStackAddress(besides: elsewhere, size: 0x10801) == nil)
    }
}

import Testing

@testable import SockaliveCore

private func memoryMap(_ text: String, startOfStack: UInt64? = 0x7ffd_1001_f000) -> MemoryMap {
    Array(text.utf8).withUnsafeBufferPointer { MemoryMap($0, startOfStack: startOfStack) }
}

@Suite struct MemoryMapTests {
    /// In the kernel's format, in the order of addresses.
    static let text = """
        55d0c8a00000-55d0c8a28000 r--p 00000000 08:01 1310  /usr/sbin/beremote
        55d0c8a28000-55d0c8a90000 r-xp 00028000 08:01 1310  /usr/sbin/be remote (deleted)
        55d0c9000000-55d0c9021000 rw-p 00000000 00:00 0     [heap]
        7f10a0000000-7f10a0100000 r-xp 00000000 00:00 0
        7f10a0800000-7f10a0801000 ---p 00000000 00:00 0
        7f10a0801000-7f10a1001000 rw-p 00000000 00:00 0
        7f10a1001000-7f10a1002000 rw-p 00000000 00:00 0
        7f10b0000000-7f10b0150000 r-xp 00028000 08:01 4711  /usr/lib/libc.so.6
        7f10b0200000-7f10b0201000 rwxp 00000000 08:01 4712  /usr/lib/[vdso]
        7ffd10000000-7ffd10021000 rw-p 00000000 00:00 0     [stack]
        7ffd10100000-7ffd10102000 r-xp 00000000 00:00 0     [vdso]
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]

        """

    @Test func `code is mapped from a file or the kernel, and not writable`() {
        #expect(
            memoryMap(Self.text).code == [
                0x55d0_c8a2_8000..<0x55d0_c8a9_0000, 0x7f10_b000_0000..<0x7f10_b015_0000,
                0x7ffd_1010_0000..<0x7ffd_1010_2000,
            ])
    }

    @Test func `a stack is the main thread's, or right above a guard page`() {
        let map = memoryMap(Self.text)
        #expect(
            map.stacks == [
                MemoryMap.Stack(span: 0x7f10_a080_1000..<0x7f10_a100_1000, isMain: false),
                MemoryMap.Stack(span: 0x7ffd_1000_0000..<0x7ffd_1002_1000, isMain: true),
            ])
        // A stack pointer may be at the very end, if nothing is pushed yet, and never at the start.
        #expect(map.stack(at: 0x7f10_a100_1000)?.isMain == false)
        #expect(map.stack(at: 0x7f10_a080_1000) == nil)
        #expect(map.stack(at: 0x55d0_c900_1000) == nil)
    }

    /// Linux 3.10, the map of a thread whose stack pointer is in a coroutine's memory: the label is there.
    @Test(arguments: [0x7ffd_1001_f000, nil] as [UInt64?])
    func `the main stack is where the program started, whatever is labelled so`(start: UInt64?) {
        let text = """
            7f10a0000000-7f10a0100000 rw-p 00000000 00:00 0     [stack]
            7f10a0800000-7f10a0801000 ---p 00000000 00:00 0
            7f10a0801000-7f10a1001000 rw-p 00000000 00:00 0     [stack:4712]
            7ffd10000000-7ffd10021000 rw-p 00000000 00:00 0

            """
        let thread = MemoryMap.Stack(span: 0x7f10_a080_1000..<0x7f10_a100_1000, isMain: false)
        let main = MemoryMap.Stack(span: 0x7ffd_1000_0000..<0x7ffd_1002_1000, isMain: true)
        #expect(memoryMap(text, startOfStack: start).stacks == (start == nil ? [thread] : [thread, main]))
        // A file is no stack, wherever a target says that its stack began.
        let file = "7ffd10000000-7ffd10021000 rw-p 00000000 08:01 7     /x\n"
        #expect(memoryMap(file).stacks.isEmpty)
    }

    @Test func `a cut line gives no mapping, and neither does a path that looks like one`() {
        let line = "7ffd10000000-7ffd10021000 rw-p 00000000 00:00 0     [stack]\n"
        #expect(memoryMap(line).stacks.count == 1)
        for length in 0..<line.utf8.count { #expect(memoryMap(String(line.prefix(length))).stacks.isEmpty) }
        #expect(memoryMap("7ffd10000000-7ffd10021000 rw-p 00000000 08:01 7     [stack]x\n").stacks.isEmpty)
        #expect(memoryMap("7ffd10021000-7ffd10000000 r-xp 00000000 08:01 7     /x\n").code.isEmpty)
        #expect(memoryMap(#"1000-2000 r--p 0 08:01 7 /x\0127f00-7fff r-xp 0 08:01 7 /y"# + "\n").code.isEmpty)
    }
}

@Suite struct SyscallGadgetsTests {
    private func gadgets(_ bytes: [UInt8], is32Bit: Bool = false, at address: UInt64 = 0x1000) -> SyscallGadgets {
        var gadgets = SyscallGadgets(is32Bit: is32Bit)
        bytes.withUnsafeBytes { gadgets.search($0, at: address) }
        return gadgets
    }

    @Test func `64-bit gadgets are found with their bytes`() {
        let found = gadgets([
            0x90, 0x0f, 0x05, 0x90, 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05, 0x90, 0x0f, 0x05, 0xc3,
        ])
        #expect(found.isComplete && found.skipped == 0)
        #expect(found.call == SyscallGadgets.Gadget(address: 0x100e, bytes: [0x0f, 0x05, 0xc3]))
        #expect(found.sigreturn?.address == 0x1004)
        #expect(found.sigreturn?.bytes == [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05])
    }

    @Test func `a call gadget without a ret is better than none`() {
        let found = gadgets([0x90, 0x0f, 0x05, 0x90, 0x0f, 0x05, 0x90])
        #expect(found.call?.address == 0x1001 && !found.returns && found.sigreturn == nil && !found.isComplete)
        #expect(gadgets([0x0f, 0x04, 0x05, 0xcd, 0x80, 0xc3]).call == nil)
    }

    @Test func `the 32-bit vDSO pops three words before its ret`() {
        let vdso: [UInt8] = [0x0f, 0x34, 0xcd, 0x80, 0x5d, 0x5a, 0x59, 0xc3, 0xb8, 0xad, 0, 0, 0, 0xcd, 0x80]
        let found = gadgets(vdso, is32Bit: true)
        #expect(found.isComplete && found.skipped == 3)
        #expect(found.call?.address == 0x1002)
        #expect(found.sigreturn?.address == 0x1008)
        #expect(gadgets([0xcd, 0x80, 0xc3], is32Bit: true).skipped == 0)
    }

    /// A search continues, and earlier results stay.
    @Test func `gadgets of two pieces of code are combined`() {
        var gadgets = gadgets([0x0f, 0x05, 0xc3])
        let more: [UInt8] = [0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05, 0xc3]
        more.withUnsafeBytes { gadgets.search($0, at: 0x9000) }
        #expect(gadgets.isComplete && gadgets.call?.address == 0x1000)
    }
}

@Suite struct ThreadStatusTests {
    private func status(_ text: String) throws -> ProcessStatus {
        try #require(ProcessStatus(Array(("Uid:\t0\t0\t0\t0\n" + text).utf8)))
    }

    @Test func `the fields for a remote call are parsed with any process name`() throws {
        let status = try status(
            """
            Name:\tSeccomp:\\nSigBlk:\\t0
            FDSize:\t256
            NSpid:\t4711\t12\t3
            Seccomp:\t2
            SigBlk:\t0000000000010000
            SigCgt:\t0000000000000402
            x86_Thread_features:\tshstk wrss
            x86_Thread_features_locked:\t

            """)
        #expect(status.seccomp == 2 && status.ownNumber == 3 && status.descriptorTableSize == 256)
        #expect(status.handledSignals == 0x10402 && status.hasShadowStack && status.blockedSignals == 0x10000)
    }

    /// CentOS 7, Linux 3.10: no NSpid, no Speculation, no x86_Thread_features.
    @Test func `an old kernel's status is enough`() throws {
        let status = try status(
            """
            Name:\tberemote
            State:\tS (sleeping)
            Tgid:\t2301
            Ngid:\t0
            Pid:\t2301
            PPid:\t1
            TracerPid:\t0
            Uid:\t0\t0\t0\t0
            Gid:\t0\t0\t0\t0
            FDSize:\t64
            Groups:\t
            SigQ:\t0/3818
            SigPnd:\t0000000000000000
            ShdPnd:\t0000000000000000
            SigBlk:\t0000000000000200
            SigIgn:\t0000000000001000
            SigCgt:\t0000000180014002
            CapInh:\t0000000000000000
            CapPrm:\t0000001fffffffff
            CapEff:\t0000001fffffffff
            CapBnd:\t0000001fffffffff
            Seccomp:\t0
            Cpus_allowed:\t3

            """)
        #expect(status.ownNumber == nil && status.seccomp == 0 && status.blockedSignals == 0x200)
        #expect(status.handledSignals == 0x1_8001_4202 && status.threadGroup == 2301)
    }

    /// "Locked" does not mean "on". A mask that cannot be parsed may contain any signal.
    @Test func `unknown values count as the more dangerous ones`() throws {
        let status = try status("Seccomp:\tx\nSigCgt:\t?\nx86_Thread_features:\t\nx86_Thread_features_locked:\tshstk\n")
        #expect(status.seccomp == 1 && status.handledSignals == .max && !status.hasShadowStack)
        #expect(status.ownNumber == nil && status.blockedSignals == nil)
    }

    @Test func `the descriptor limit is the soft one`() {
        let limits = "Limit    Soft Limit  Hard Limit  Units\nMax open files            1024     524288    files     \n"
        #expect(TargetInspector.descriptorLimit(Array(limits.utf8)) == 1024)
        #expect(TargetInspector.descriptorLimit(Array("Max open files   unlimited  unlimited files\n".utf8)) == nil)
    }
}

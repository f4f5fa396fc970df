import CSockalive
import Glibc
import SystemPackage

// What ptrace(2) reads and writes of a stopped thread.
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

    /// PTRACE_PEEKDATA: one word of the stopped thread's memory; nil if it is not mapped.
    func peek(at address: UInt64) throws(Errno) -> UInt64? {
        var word: UInt64 = 0
        do {
            try request(.peek, address: UInt(address), &word)
            return word
        } catch .ioError {
            return nil
        } catch .badAddress {
            return nil
        }
    }

    /// The signals that the thread blocks: bit n - 1 is signal n. nil before Linux 3.11 (EIO: no such request).
    func signalMask() throws(Errno) -> UInt64? {
        var mask: UInt64 = 0
        do {
            try request(.getSignalMask, address: UInt(MemoryLayout<UInt64>.size), &mask)
            return mask
        } catch .ioError {
            return nil
        }
    }

    /// - Throws: `ioError` before Linux 3.11.
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

    /// What ptrace(2) tells of the thread's struct rseq.
    enum RseqArea {
        case none
        case at(UInt64)
        /// The kernel is too old to tell (EIO, EINVAL: no such request).
        case hidden
    }

    func rseqArea() throws(Errno) -> RseqArea {
        // struct ptrace_rseq_configuration: address; size and signature; flags and padding.
        var configuration: (address: UInt64, UInt64, UInt64) = (0, 0, 0)
        let size = UInt(MemoryLayout.size(ofValue: configuration))
        do {
            try request(.getRestartableSequence, address: size, &configuration)
        } catch .ioError {
            return .hidden
        } catch .invalidArgument {
            return .hidden
        }
        return configuration.address == 0 ? .none : .at(configuration.address)
    }
}

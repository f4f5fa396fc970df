import Glibc
import SystemPackage

/// The memory of another process, through `/proc/PID/task/TID/mem` (proc_pid_mem(5)).
///
/// The descriptor stays with the memory that the thread had when it was opened (fs/proc/base.c, mem_open takes a
/// reference; mem_rw uses that one). process_vm_readv(2) asks anew each time who has the number: after an execve(2)
/// under the same number it reads and writes another program, a privileged one perhaps.
final class TargetMemory {
    private let descriptor: Int32
    /// False where it may only be read: the file has mode 0600 and belongs to the process's user, and CAP_SYS_PTRACE
    /// with CAP_DAC_READ_SEARCH opens it for reading alone.
    let isWritable: Bool

    /// - Parameters:
    ///   - thread: `PID/task/TID`.
    ///   - isWritten: asks for writing, too; see ``isWritable``.
    /// - Throws: `Errno`: what PTRACE_MODE_ATTACH answers (`permissionDenied`), `noSuchFileOrDirectory`.
    init(procfs: ProcFS, thread: String, isWritten: Bool) throws(Errno) {
        func opened(_ mode: Int32) -> Int32 { openat(procfs.root.rawValue, "\(thread)/mem", mode | O_CLOEXEC) }
        let writable = isWritten ? opened(O_RDWR) : -1
        isWritable = writable >= 0
        descriptor = isWritable ? writable : opened(O_RDONLY)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// - Throws: `badAddress` where not all of it is mapped and readable; `noSuchProcess` where the memory is gone,
    ///   because its last process has exited or runs another program.
    func read(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        let count = try readSome(address, into: bytes)
        if count < bytes.count { throw .badAddress }
    }

    /// - Returns: how many bytes were read, at least one: up to the first page that cannot be read.
    func readSome(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        WorkerProgress.enter(next: .memory)
        let count = pread(descriptor, bytes.baseAddress, bytes.count, Int(bitPattern: UInt(address)))
        return try Self.checked(count, bytes.count)
    }

    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt64) throws(Errno) {
        WorkerProgress.enter(next: .memory)
        let count = pwrite(descriptor, bytes.baseAddress, bytes.count, Int(bitPattern: UInt(address)))
        if try Self.checked(count, bytes.count) < bytes.count { throw .badAddress }
    }

    /// A value as it lies in the memory; nil where it is not readable.
    func value<Value: BitwiseCopyable>(at address: UInt64, like sample: Value) throws(Errno) -> Value? {
        var value = sample
        // withUnsafeMutableBytes takes no typed throws that the compiler keeps.
        var failure: Errno?
        withUnsafeMutableBytes(of: &value) { bytes in
            do throws(Errno) { try read(address, into: bytes) } catch { failure = error }
        }
        if failure == .badAddress { return nil }
        if let failure { throw failure }
        return value
    }

    /// mem_rw answers EIO for a page that is not to be had, 0 for a memory without users (mmget_not_zero); pread(2)
    /// answers EINVAL for an address in the upper half, which is the kernel's.
    private static func checked(_ count: Int, _ wanted: Int) throws(Errno) -> Int {
        if count > 0 || wanted == 0 { return count }
        guard count < 0 else { throw .noSuchProcess }
        let error = Errno(rawValue: errno)
        throw [.ioError, .badAddress, .invalidArgument].contains(error) ? .badAddress : error
    }
}

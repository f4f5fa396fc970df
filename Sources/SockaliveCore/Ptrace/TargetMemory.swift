import Glibc
import SystemPackage

/// The memory of another process, through `/proc/PID/task/TID/mem` (proc_pid_mem(5)).
///
/// The descriptor refers to the memory that the thread had at the open (fs/proc/base.c: mem_open takes a reference,
/// mem_rw uses it). process_vm_readv(2) is not used: it looks the number up at each call. After an execve(2) under the
/// same number it accesses another program, which may be privileged.
final class TargetMemory {
    private let descriptor: Int32
    /// False if the file is read-only: it has mode 0600 and belongs to the process's user. With CAP_SYS_PTRACE and
    /// CAP_DAC_READ_SEARCH it opens only for reading.
    let isWritable: Bool

    /// - Parameters:
    ///   - thread: `PID/task/TID`.
    ///   - isWritten: tries to open for writing, too; see ``isWritable``.
    /// - Throws: `Errno`: `permissionDenied` if PTRACE_MODE_ATTACH is denied, `noSuchFileOrDirectory`.
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

    /// - Throws: `badAddress` if not all of it is mapped and readable; `noSuchProcess` if the memory is gone, because
    ///   its last process has exited or runs another program.
    func read(_ address: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        let count = try readSome(address, into: bytes)
        if count < bytes.count { throw .badAddress }
    }

    /// - Returns: how many bytes were read, at least one. The read ends at the first unreadable page.
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

    /// A value in the target's memory; nil if it is not readable.
    func value<Value: BitwiseCopyable>(at address: UInt64, like sample: Value) throws(Errno) -> Value? {
        var value = sample
        // withUnsafeMutableBytes does not keep a typed throw.
        var failure: Errno?
        withUnsafeMutableBytes(of: &value) { bytes in
            do throws(Errno) { try read(address, into: bytes) } catch { failure = error }
        }
        if failure == .badAddress { return nil }
        if let failure { throw failure }
        return value
    }

    /// mem_rw returns EIO for a page that cannot be accessed, and 0 for memory without users (mmget_not_zero). pread(2)
    /// returns EINVAL for an address in the upper half, which belongs to the kernel.
    private static func checked(_ count: Int, _ wanted: Int) throws(Errno) -> Int {
        if count > 0 || wanted == 0 { return count }
        guard count < 0 else { throw .noSuchProcess }
        let error = Errno(rawValue: errno)
        throw [.ioError, .badAddress, .invalidArgument].contains(error) ? .badAddress : error
    }
}

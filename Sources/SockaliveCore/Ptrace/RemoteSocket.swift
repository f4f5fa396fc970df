import Glibc
import SystemPackage

/// A socket inside the process that owns it. ptrace(2) holds one thread of that process, and the thread itself calls
/// getsockopt and setsockopt. The thread is detached at the latest when the value is destroyed.
struct RemoteSocket: ~Copyable, SocketOptions {
    /// The step that failed.
    ///
    /// ``HelperReply`` carries the raw values.
    enum Reason: Int64 {
        /// This architecture, or this kind of target (x32, an unusual code segment).
        case unsupported
        /// No thread can be held: ESRCH, gone or a zombie; EBUSY, in state D.
        case chooseThread
        /// PTRACE_SEIZE failed: no permission, or already traced.
        case seize
        /// The thread did not stop in time.
        case stop
        /// Registers, instructions or scratch memory are not available.
        case prepare
        /// A seccomp filter cannot be suspended.
        case seccomp
        /// ESTALE: the descriptor is not that socket any more. No call was made on it.
        case descriptor
        /// The remote call did not complete.
        case call
        /// Another thread, or a process that shares the memory, diverted the held thread. No call was made.
        case tampered
        /// The thread now runs another program (execve(2)). Nothing was written into that.
        case replaced
        /// The target exited while it was held.
        case gone
        /// The target is in a frozen cgroup. No thread was stopped.
        case frozen
        /// The target's memory cannot be read, although the kernel gave the right to it.
        case memory
        /// The thread makes no system call (ETIMEDOUT), or is stopped outside of one (EBUSY), and this kernel does not
        /// tell whether it is in a restartable sequence. Nothing of it was changed.
        case userCode
        /// The thread ended before it was held. Nothing was changed.
        case ended
    }

    /// Why a process could not be held, or a remote call did not complete.
    struct AttachError: Error, Equatable {
        let reason: Reason
        let errno: Errno
    }

    private let thread: HeldThread

    /// - Throws: ``AttachError``. Its reason is `descriptor` if another file has the number by now.
    init(_ target: RemoteTarget) throws(AttachError) {
        thread = HeldThread(target)
        try thread.attach()
    }

    /// If this process is killed while it holds the target, the target recovers without it.
    var isCrashSafe: Bool { thread.isCrashSafe }

    /// A wait of the thread that begins anew.
    var restartedWait: RestartedWait? { thread.restartedWait }

    /// Lets the thread continue. Returns how long it was stopped, in microseconds.
    ///
    /// - Throws: ``AttachError`` if the state found could not be restored. The target continues by itself.
    consuming func release() throws(AttachError) -> Int {
        try ending { () throws(Errno) in try thread.detach() }.wholeMicroseconds
    }

    /// Compares the cookie: the link in `/proc` has only the inode.
    ///
    /// - Throws: `staleNFSFileHandle` if it is another socket with the same inode.
    mutating func confirm(_ identity: SocketIdentity) throws {
        guard let expected = identity.cookie else { return }
        var cookie: UInt64 = 0
        do {
            _ = try withUnsafeMutableBytes(of: &cookie) {
                try make(OptionCall(isSet: false, level: SOL_SOCKET, name: SO_COOKIE), $0)
            }
        } catch Errno.protocolNotAvailable {
            return  // before Linux 4.12
        }
        if cookie != expected { throw Errno.staleNFSFileHandle }
    }

    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int {
        let value = UnsafeMutableRawBufferPointer(rebasing: value.prefix(ScratchArea.valueSize))
        return try make(OptionCall(isSet: false, level: level, name: name), value)
    }

    mutating func exchange(_ options: inout [OptionExchange]) throws {
        let values = try ending { () throws(Errno) in try thread.chain(options) }
        for index in options.indices {
            if let value = values[index] { options[index].value = value } else { try exchangeAlone(&options[index]) }
        }
    }

    private func exchangeAlone(_ option: inout OptionExchange) throws {
        do {
            for isSet in [true, false] where !isSet || option.newValue != nil {
                var value = isSet ? option.newValue ?? 0 : 0
                let call = OptionCall(isSet: isSet, level: option.level, name: option.name)
                _ = try withUnsafeMutableBytes(of: &value) { try make(call, $0) }
                option.value = value
            }
        } catch let error as Errno {
            option.error = error
        }
    }

    /// - Returns: how many bytes of the value are valid.
    /// - Throws: the call's own `Errno`, or ``AttachError`` if the call did not complete.
    private func make(_ option: OptionCall, _ value: UnsafeMutableRawBufferPointer) throws -> Int {
        var length = UInt32(value.count)
        _ = try ending { () throws(Errno) in try thread.make(option, value, length: &length) }.get()
        return Int(length)
    }

    private func ending<Value>(_ body: () throws(Errno) -> Value) throws(AttachError) -> Value {
        do {
            return try body()
        } catch {
            throw thread.attachError(for: error)
        }
    }
}

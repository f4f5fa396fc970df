import Glibc
import SystemPackage

/// A socket reached inside the process that owns it: one thread of that process is held still by
/// ptrace(2), and getsockopt and setsockopt are called by it. Release is certain: at the latest when
/// the value goes away.
struct RemoteSocket: ~Copyable, SocketOptions {
    /// The step that failed.
    ///
    /// The numbers are those of ``WorkerReply``.
    enum Reason: Int64 {
        /// This architecture, or this kind of target (x32, an odd code segment).
        case unsupported
        /// No thread to hold: ESRCH gone or zombie, EBUSY in state D.
        case chooseThread
        /// PTRACE_SEIZE was refused: permission, or traced already.
        case seize
        /// The thread did not stop in time.
        case stop
        /// Registers, instructions or scratch memory were not to be had.
        case prepare
        /// A seccomp filter that could not be suspended.
        case seccomp
        /// ESTALE: the descriptor is no longer that socket; nothing was called on it.
        case descriptor
        /// The remote call did not come to its end.
        case call
        /// Another thread, or a process that shares the memory, led the held thread elsewhere. Nothing was called.
        case tampered
        /// The thread runs another program by now (execve(2)). Nothing was written into that.
        case replaced
        /// The target exited while it was held.
        case gone
    }

    /// Why a process could not be held, or a remote call not made.
    struct AttachError: Error, Equatable {
        let reason: Reason
        let errno: Errno
    }

    private let thread: HeldThread

    /// - Throws: ``AttachError``; its reason is `descriptor` where another file stands under the number by now.
    init(_ target: RemoteTarget) throws(AttachError) {
        thread = HeldThread(target)
        try thread.attach()
    }

    /// The target recovers by itself should this process be killed while it holds it.
    var isCrashSafe: Bool { thread.isCrashSafe }

    /// Lets the thread go on; answers for how long it stood still, in microseconds.
    ///
    /// - Throws: ``AttachError`` where what was found could not be put back; the target goes on by itself.
    consuming func release() throws(AttachError) -> Int {
        try ending { () throws(Errno) in try thread.detach() }.wholeMicroseconds
    }

    /// The link in `/proc` tells the inode alone.
    ///
    /// - Throws: `staleNFSFileHandle` where it is another socket with the same inode.
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

    /// - Returns: how many bytes of the value count.
    /// - Throws: the call's own `Errno`, or ``AttachError`` where it did not come to its end.
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

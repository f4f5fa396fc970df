import SystemPackage

/// A socket reached inside the process that owns it: one thread of that process is held still by
/// ptrace(2), and getsockopt and setsockopt are called by it. Release is certain: at the latest when
/// the value goes away.
struct RemoteSocket: ~Copyable, SocketOptions {
    /// How far it came.
    enum Stage {
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
        /// The target exited while it was held.
        case gone
    }

    /// Why a process could not be held, or a remote call not made.
    struct Refusal: Error {
        let stage: Stage
        let errno: Errno
    }

    private let thread: HeldThread

    /// - Throws: ``Refusal``; its stage is `descriptor` where another file stands under the number by now.
    init(_ target: RemoteTarget) throws(Refusal) {
        thread = HeldThread(target)
        try thread.hold()
    }

    /// The target recovers by itself should this process be killed while it holds it.
    var isCrashSafe: Bool { thread.isCrashSafe }

    /// Lets the thread go on; answers for how long it stood still, in microseconds.
    consuming func release() -> Int {
        let (seconds, attoseconds) = thread.letGo().components
        return Int(seconds) * 1_000_000 + Int((attoseconds + 500_000_000_000) / 1_000_000_000_000)
    }

    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int {
        let value = UnsafeMutableRawBufferPointer(rebasing: value.prefix(Pad.valueSize))
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
    /// - Throws: the call's own `Errno`, or ``Refusal`` where it did not come to its end.
    private func make(_ option: OptionCall, _ value: UnsafeMutableRawBufferPointer) throws -> Int {
        var length = UInt32(value.count)
        _ = try ending { () throws(Errno) in try thread.make(option, value, length: &length) }.get()
        return Int(length)
    }

    private func ending<Value>(_ body: () throws(Errno) -> Value) throws(Refusal) -> Value {
        do {
            return try body()
        } catch {
            let isGone = error == .noSuchProcess
            throw Refusal(stage: isGone ? .gone : .call, errno: isGone ? error : .ioError)
        }
    }
}

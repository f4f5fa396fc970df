import SystemPackage

/// A wait of a held thread that begins anew when the thread runs on: its timeout comes late.
package struct RestartedWait: Equatable, BitwiseCopyable, Sendable {
    package enum Call: UInt8, BitwiseCopyable, Sendable {
        case epollWait = 1
        case sigtimedwait, semtimedop, ioGetevents, recvmmsg
        /// A call on a socket with SO_RCVTIMEO or SO_SNDTIMEO. Of splice(2) it is not known which.
        case receiveTimeout, sendTimeout
        case ioUringEnter
        /// Whose rest cannot be written back.
        case select, ppoll

        /// As its manual page is called.
        package var name: String {
            switch self {
            case .epollWait: "epoll_wait"
            case .sigtimedwait: "sigtimedwait"
            case .semtimedop: "semtimedop"
            case .ioGetevents: "io_getevents"
            case .recvmmsg: "recvmmsg"
            case .receiveTimeout: "SO_RCVTIMEO"
            case .sendTimeout: "SO_SNDTIMEO"
            case .ioUringEnter: "io_uring_enter"
            case .select: "select"
            case .ppoll: "ppoll"
            }
        }
    }

    package let call: Call
    /// The whole timeout, by so much it comes late at most; nil if it is not known.
    package let milliseconds: Int?
}

extension HeldThread {
    /// nil if the thread loses nothing by its stop.
    var restartedWait: RestartedWait? {
        let is32Bit = target.gadgets.is32Bit
        let poll = interrupted.isRepeated ? found.repeatedPoll(is32Bit: is32Bit) : nil
        if let wait = found.restartedWait(is32Bit: is32Bit) ?? poll {
            if case .ringArgument(let address, let isRelative) = wait.timeout {
                return ringWait(wait.call, at: address, isRelative: isRelative)
            }
            return RestartedWait(call: wait.call, milliseconds: milliseconds(wait.timeout))
        }
        return found.restartedSocketCall(is32Bit: is32Bit).map { RestartedWait(call: $0, milliseconds: nil) }
    }

    private func milliseconds(_ timeout: TimedWait.Timeout) -> Int? {
        switch timeout {
        case .milliseconds(let count): return count
        case .timespec(let address, let isWide): return time(at: address, isWide, unitsPerMillisecond: 1_000_000)
        case .timeval(let address, let isWide): return time(at: address, isWide, unitsPerMillisecond: 1000)
        case .ringArgument, .unknown: return nil
        }
    }

    /// struct io_uring_getevents_arg (include/uapi/linux/io_uring.h). liburing also gives it without any time.
    private func ringWait(_ call: RestartedWait.Call, at address: UInt64, isRelative: Bool) -> RestartedWait? {
        let sample = (signals: UInt64(0), size: UInt32(0), leastMicroseconds: UInt32(0), time: UInt64(0))
        guard let argument = (try? memory())?.found(at: address, like: sample) else {
            return RestartedWait(call: call, milliseconds: nil)
        }
        if isRelative && argument.time != 0 {
            return RestartedWait(call: call, milliseconds: milliseconds(.timespec(argument.time, isWide: true)))
        }
        guard argument.leastMicroseconds != 0 else { return nil }
        return RestartedWait(call: call, milliseconds: Int(argument.leastMicroseconds / 1000))
    }

    /// A struct timespec, or a struct timeval.
    private func time(at address: UInt64, _ isWide: Bool, unitsPerMillisecond: Int64) -> Int? {
        let memory = try? memory()
        let time: (seconds: Int64, units: Int64)? =
            isWide
            ? memory?.found(at: address, like: (Int64(0), Int64(0)))
            : memory?.found(at: address, like: (Int32(0), Int32(0))).map { (Int64($0), Int64($1)) }
        guard let time, (0..<1 << 40).contains(time.seconds), (0..<1000 * unitsPerMillisecond).contains(time.units)
        else { return nil }
        return Int(time.seconds) * 1000 + Int(time.units / unitsPerMillisecond)
    }
}

extension TargetMemory {
    /// nil also if the memory is gone.
    fileprivate func found<Value: BitwiseCopyable>(at address: UInt64, like sample: Value) -> Value? {
        (try? value(at: address, like: sample)) ?? nil
    }
}

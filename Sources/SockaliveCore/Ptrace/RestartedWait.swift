import SystemPackage

/// A wait of a held thread that begins anew when the thread runs on: its timeout comes late.
package struct RestartedWait: Equatable, BitwiseCopyable, Sendable {
    package enum Call: UInt8, BitwiseCopyable, Sendable {
        case epollWait = 1
        case sigtimedwait, semtimedop, ioGetevents, recvmmsg
        /// A call on a socket with SO_RCVTIMEO or SO_SNDTIMEO.
        case socketTimeout

        /// As its manual page is called.
        package var name: String {
            switch self {
            case .epollWait: "epoll_wait"
            case .sigtimedwait: "sigtimedwait"
            case .semtimedop: "semtimedop"
            case .ioGetevents: "io_getevents"
            case .recvmmsg: "recvmmsg"
            case .socketTimeout: "SO_RCVTIMEO"
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
        guard let wait = found.restartedWait(is32Bit: is32Bit) else {
            return found.restartsSocketCall(is32Bit: is32Bit)
                ? RestartedWait(call: .socketTimeout, milliseconds: nil) : nil
        }
        return RestartedWait(call: wait.call, milliseconds: milliseconds(wait.timeout))
    }

    private func milliseconds(_ timeout: TimedWait.Timeout) -> Int? {
        let time: (seconds: Int64, nanoseconds: Int64)?
        switch timeout {
        case .milliseconds(let count): return count
        case .unknown: return nil
        case .timespec(let address, isWide: true):
            time = (try? memory())?.time(at: address, like: (Int64(0), Int64(0)))
        case .timespec(let address, isWide: false):
            time = (try? memory())?.time(at: address, like: (Int32(0), Int32(0))).map { (Int64($0), Int64($1)) }
        }
        guard let time, (0..<1 << 40).contains(time.seconds), (0..<1_000_000_000).contains(time.nanoseconds) else {
            return nil
        }
        return Int(time.seconds) * 1000 + Int(time.nanoseconds / 1_000_000)
    }
}

extension TargetMemory {
    fileprivate func time<Number: BitwiseCopyable>(at address: UInt64, like sample: (Number, Number)) -> (
        Number, Number
    )? {
        (try? value(at: address, like: sample)) ?? nil
    }
}

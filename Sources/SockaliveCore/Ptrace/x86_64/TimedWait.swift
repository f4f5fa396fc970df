/// A system call that waits for a relative time, of which the kernel stores no end. If its thread is stopped, the call is
/// made again from its start, and its timeout comes late by what had passed of it (Docs/Injection.md). Pure.
struct TimedWait: Equatable {
    enum Timeout: Equatable {
        case milliseconds(Int)
        /// The address of a struct timespec: two words of 64 bits, or of 32.
        case timespec(UInt64, isWide: Bool)
        case unknown
    }

    let call: RestartedWait.Call
    let timeout: Timeout

    /// nil for a call that ends on time, or has no timeout.
    ///
    /// - Parameter arguments: all six.
    init?(number: UInt64, arguments: [UInt64], is32Bit: Bool) {
        guard arguments.count == 6 else { return nil }
        guard
            let (call, place, kind) = is32Bit
                ? Syscall32(rawValue: number).flatMap({ Self.place32($0, arguments) })
                : Syscall64(rawValue: number).flatMap(Self.place64)
        else { return nil }
        let argument = arguments[place]
        self.call = call
        switch kind {
        case .number:
            let milliseconds = Int32(truncatingIfNeeded: argument)
            guard milliseconds > 0 else { return nil }
            timeout = .milliseconds(Int(milliseconds))
        case .pointer(let isWide):
            guard argument != 0 else { return nil }
            timeout = .timespec(argument, isWide: isWide)
        }
    }

    private enum Kind {
        case number
        case pointer(isWide: Bool)
    }

    private typealias Place = (call: RestartedWait.Call, argument: Int, kind: Kind)

    private static func place64(_ call: Syscall64) -> Place? {
        switch call {
        case .epollWait, .epollPwait: (.epollWait, 3, .number)
        case .epollPwait2: (.epollWait, 3, .pointer(isWide: true))
        case .rtSigtimedwait: (.sigtimedwait, 2, .pointer(isWide: true))
        case .semtimedop: (.semtimedop, 3, .pointer(isWide: true))
        case .ioGetevents, .ioPgetevents: (.ioGetevents, 4, .pointer(isWide: true))
        case .recvmmsg: (.recvmmsg, 4, .pointer(isWide: true))
        default: nil
        }
    }

    private static func place32(_ call: Syscall32, _ arguments: [UInt64]) -> Place? {
        switch call {
        case .epollWait, .epollPwait: (.epollWait, 3, .number)
        case .epollPwait2: (.epollWait, 3, .pointer(isWide: true))
        case .rtSigtimedwait: (.sigtimedwait, 2, .pointer(isWide: false))
        case .rtSigtimedwaitTime64: (.sigtimedwait, 2, .pointer(isWide: true))
        case .semtimedopTime64: (.semtimedop, 3, .pointer(isWide: true))
        // ipc(2): SEMTIMEDOP has the time in its fifth argument behind the kind of call.
        case .ipc where arguments[0] & 0xffff == 4: (.semtimedop, 5, .pointer(isWide: false))
        case .ioGetevents, .ioPgetevents: (.ioGetevents, 4, .pointer(isWide: false))
        case .ioPgeteventsTime64: (.ioGetevents, 4, .pointer(isWide: true))
        case .recvmmsg: (.recvmmsg, 4, .pointer(isWide: false))
        case .recvmmsgTime64: (.recvmmsg, 4, .pointer(isWide: true))
        default: nil
        }
    }
}

/// What `/proc/PID/task/TID/syscall` tells of a thread that sleeps (proc_pid_syscall(5)). Pure.
struct SleepingCall {
    let stackPointer: UInt64
    let wait: TimedWait?

    /// nil for a thread that runs.
    init?(_ text: [UInt8]) {
        let words = text.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }
        guard words.count >= 2, let pointer: UInt64 = words[words.count - 2].dropFirst(2).hexadecimal() else {
            return nil
        }
        stackPointer = pointer
        let arguments = words.count == 9 ? words[1..<7].compactMap { $0.dropFirst(2).hexadecimal(UInt64.self) } : []
        // The file does not show the table. A 32-bit program has its stack below 4 GiB, and hardly another one does.
        wait = words[0].decimal(UInt64.self).flatMap {
            TimedWait(number: $0, arguments: arguments, is32Bit: pointer >> 32 == 0)
        }
    }
}

extension Registers {
    /// The wait that the thread makes again from its start; nil if it loses nothing.
    func restartedWait(is32Bit: Bool) -> TimedWait? {
        guard isInCall, Int32(truncatingIfNeeded: user.rax) == InterruptedSyscall.restartFromStart else { return nil }
        return TimedWait(number: user.orig_rax, arguments: entry(is32Bit: is32Bit).arguments, is32Bit: is32Bit)
    }

    /// A call on a socket was interrupted that has SO_RCVTIMEO or SO_SNDTIMEO: any other is restarted by another code
    /// (include/net/sock.h, sock_intr_errno). Which timeout that is, only the socket tells.
    func restartsSocketCall(is32Bit: Bool) -> Bool {
        guard isInCall, Int32(truncatingIfNeeded: user.rax) == InterruptedSyscall.restartFromStart else { return false }
        if is32Bit {
            return switch Syscall32(rawValue: user.orig_rax) {
            case .read, .write, .readv, .writev, .socketcall, .recvfrom, .recvmsg, .sendto, .sendmsg, .accept4,
                .connect:
                true
            default: false
            }
        }
        return switch Syscall64(rawValue: user.orig_rax) {
        case .read, .write, .readv, .writev, .recvfrom, .recvmsg, .sendto, .sendmsg, .accept, .accept4, .connect: true
        default: false
        }
    }
}

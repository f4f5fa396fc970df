import Glibc

/// A system call that waits for a relative time, of which the kernel stores no end. If its thread is stopped, the call is
/// made again from its start, and its timeout comes late by what had passed of it (Docs/Injection.md). Pure.
struct TimedWait: Equatable {
    enum Timeout: Equatable {
        case milliseconds(Int)
        /// The address of a struct timespec: two words of 64 bits, or of 32.
        case timespec(UInt64, isWide: Bool)
        /// The same of a struct timeval.
        case timeval(UInt64, isWide: Bool)
        /// The address of a struct io_uring_getevents_arg. If its time is absolute, only its least wait is relative.
        case ringArgument(UInt64, isRelative: Bool)
        case unknown
    }

    let call: RestartedWait.Call
    let timeout: Timeout

    /// nil for a call that ends on time, or has no timeout.
    ///
    /// - Parameter arguments: all six.
    init?(number: UInt64, arguments: [UInt64], is32Bit: Bool) {
        guard arguments.count == 6 else { return nil }
        if number == (is32Bit ? Syscall32.ioUringEnter.rawValue : Syscall64.ioUringEnter.rawValue) {
            guard let timeout = Self.ringTimeout(flags: arguments[3], arguments[4]) else { return nil }
            call = .ioUringEnter
            self.timeout = timeout
            return
        }
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

    private init(_ call: RestartedWait.Call, _ timeout: Timeout) {
        self.call = call
        self.timeout = timeout
    }

    /// A select, pselect or ppoll that returns EINTR, because the rest of its timeout cannot be written back: it begins
    /// anew. As a rule it is written back, and these calls end on time.
    static func repeatedPoll(number: UInt64, arguments: [UInt64], is32Bit: Bool) -> TimedWait? {
        guard arguments.count == 6 else { return nil }
        if is32Bit {
            return switch Syscall32(rawValue: number) {
            // One pointer to all five (arch/x86/entry/syscalls/syscall_32.tbl, compat_sys_old_select).
            case .oldSelect: TimedWait(.select, .unknown)
            case .newselect: TimedWait(.select, .timeval(arguments[4], isWide: false))
            case .pselect6: TimedWait(.select, .timespec(arguments[4], isWide: false))
            case .pselect6Time64: TimedWait(.select, .timespec(arguments[4], isWide: true))
            case .ppoll: TimedWait(.ppoll, .timespec(arguments[2], isWide: false))
            case .ppollTime64: TimedWait(.ppoll, .timespec(arguments[2], isWide: true))
            default: nil
            }
        }
        return switch Syscall64(rawValue: number) {
        case .select: TimedWait(.select, .timeval(arguments[4], isWide: true))
        case .pselect6: TimedWait(.select, .timespec(arguments[4], isWide: true))
        case .ppoll: TimedWait(.ppoll, .timespec(arguments[2], isWide: true))
        default: nil
        }
    }

    /// io_uring_enter(2) has a timeout only behind an extended argument (Linux 5.11), whose time may be absolute (6.12).
    /// An argument that was registered before (6.13) lies in memory that no argument tells.
    private static func ringTimeout(flags: UInt64, _ argument: UInt64) -> Timeout? {
        guard flags & 1 << 0 != 0, flags & 1 << 3 != 0 else { return nil }
        if flags & 1 << 6 != 0 { return .unknown }
        return argument == 0 ? nil : .ringArgument(argument, isRelative: flags & 1 << 5 == 0)
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
    /// It may have done a part of its work. A stop makes it return that part: it sends fewer bytes, or receives less than
    /// MSG_WAITALL or the number of messages or events asks for. Of SO_RCVLOWAT no argument tells.
    let mayBeHalfDone: Bool

    /// nil for a thread that runs.
    init?(_ text: [UInt8]) {
        let words = text.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }
        guard words.count >= 2, let pointer: UInt64 = words[words.count - 2].dropFirst(2).hexadecimal() else {
            return nil
        }
        stackPointer = pointer
        let arguments = words.count == 9 ? words[1..<7].compactMap { $0.dropFirst(2).hexadecimal(UInt64.self) } : []
        // The file does not show the table. A 32-bit program has its stack below 4 GiB, and hardly another one does.
        let is32Bit = pointer >> 32 == 0
        let number = words[0].decimal(UInt64.self)
        wait = number.flatMap { TimedWait(number: $0, arguments: arguments, is32Bit: is32Bit) }
        mayBeHalfDone = number.map { Self.mayBeHalfDone($0, arguments, is32Bit) } ?? false
    }

    private static func mayBeHalfDone(_ number: UInt64, _ arguments: [UInt64], _ is32Bit: Bool) -> Bool {
        guard arguments.count == 6 else { return false }
        func waitsForAll(_ flags: UInt64) -> Bool { flags & UInt64(MSG_WAITALL) != 0 }
        func waitsForMessages(_ count: UInt64, _ flags: UInt64) -> Bool {
            waitsForAll(flags) || count > 1 && flags & UInt64(MSG_WAITFORONE) == 0
        }
        if is32Bit {
            return switch Syscall32(rawValue: number) {
            case .write, .writev, .pwritev2, .sendto, .sendmsg, .sendmmsg, .sendfile, .sendfile64, .splice: true
            // SYS_SEND, SYS_SENDTO, SYS_SENDMSG, SYS_SENDMMSG. The flags of the others lie in memory.
            case .socketcall: [9, 11, 16, 20].contains(arguments[0])
            case .recvfrom: waitsForAll(arguments[3])
            case .recvmsg: waitsForAll(arguments[2])
            case .recvmmsg, .recvmmsgTime64: waitsForMessages(arguments[2], arguments[3])
            case .ioGetevents, .ioPgetevents, .ioPgeteventsTime64: arguments[1] > 1
            case .ioUringEnter: arguments[1] > 0 || arguments[2] > 1
            default: false
            }
        }
        return switch Syscall64(rawValue: number) {
        case .write, .writev, .pwritev2, .sendto, .sendmsg, .sendmmsg, .sendfile, .splice: true
        case .recvfrom: waitsForAll(arguments[3])
        case .recvmsg: waitsForAll(arguments[2])
        case .recvmmsg: waitsForMessages(arguments[2], arguments[3])
        // The events that have come, fewer than it waits for (fs/aio.c, read_events).
        case .ioGetevents, .ioPgetevents: arguments[1] > 1
        // It would return what it has submitted, or 0 as soon as one event has come, before all that it waits for
        // (io_uring/io_uring.c, io_cqring_wait).
        case .ioUringEnter: arguments[1] > 0 || arguments[2] > 1
        default: false
        }
    }
}

extension Registers {
    /// The wait that the thread makes again from its start; nil if it loses nothing.
    ///
    /// recvmmsg looks at its timeout after each message only, and is restarted as a call without one is.
    func restartedWait(is32Bit: Bool) -> TimedWait? {
        let codes = [InterruptedSyscall.restartFromStart, InterruptedSyscall.restartInAnyCase]
        guard isInCall, codes.contains(Int32(truncatingIfNeeded: user.rax)) else { return nil }
        return TimedWait(number: user.orig_rax, arguments: entry(is32Bit: is32Bit).arguments, is32Bit: is32Bit)
    }

    /// The same for a call that returned EINTR and is repeated.
    func repeatedPoll(is32Bit: Bool) -> TimedWait? {
        TimedWait.repeatedPoll(number: user.orig_rax, arguments: entry(is32Bit: is32Bit).arguments, is32Bit: is32Bit)
    }

    /// A call on a socket was interrupted that has SO_RCVTIMEO or SO_SNDTIMEO: any other is restarted by another code
    /// (include/net/sock.h, sock_intr_errno). How long that is, only the socket tells.
    func restartedSocketCall(is32Bit: Bool) -> RestartedWait.Call? {
        guard isInCall, Int32(truncatingIfNeeded: user.rax) == InterruptedSyscall.restartFromStart else { return nil }
        if is32Bit {
            return switch Syscall32(rawValue: user.orig_rax) {
            // socketcall(2): SYS_CONNECT, SYS_SEND, SYS_SENDTO, SYS_SENDMSG, SYS_SENDMMSG (include/uapi/linux/net.h).
            case .socketcall: [3, 9, 11, 16, 20].contains(user.rbx) ? .sendTimeout : .receiveTimeout
            case .read, .readv, .preadv2, .recvfrom, .recvmsg, .recvmmsg, .recvmmsgTime64, .accept4, .splice:
                .receiveTimeout
            case .write, .writev, .pwritev2, .sendto, .sendmsg, .sendmmsg, .sendfile, .sendfile64, .connect:
                .sendTimeout
            default: nil
            }
        }
        return switch Syscall64(rawValue: user.orig_rax) {
        case .read, .readv, .preadv2, .recvfrom, .recvmsg, .recvmmsg, .accept, .accept4, .splice: .receiveTimeout
        case .write, .writev, .pwritev2, .sendto, .sendmsg, .sendmmsg, .sendfile, .connect: .sendTimeout
        default: nil
        }
    }
}

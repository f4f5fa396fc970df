import Glibc
import SystemPackage

/// The service manager that started this process and wants to hear of it (sd_notify(3)).
package struct ServiceManager {
    private let socket: DatagramSocket?
    /// It wants a sign of life at least that often; half of what it waits for, and no less than ``minInterval``.
    package let watchdogInterval: Duration?
    /// Who asks for more would leave no time to sleep.
    static let minInterval = Duration.milliseconds(100)

    /// - Parameters:
    ///   - address: NOTIFY_SOCKET.
    ///   - watchdogMicroseconds: WATCHDOG_USEC.
    ///   - watchdogProcess: WATCHDOG_PID; another process's watchdog is none of ours.
    package init(address: String?, watchdogMicroseconds: String?, watchdogProcess: String?, ownProcess: Int32) {
        socket = address.flatMap { try? DatagramSocket(address: $0) }
        let isForThisProcess = watchdogProcess.map { $0.utf8.decimal() == ownProcess } ?? true
        let microseconds = isForThisProcess ? watchdogMicroseconds.flatMap { $0.utf8.decimal(Int64.self) } : nil
        watchdogInterval = microseconds.flatMap { $0 > 0 ? max(.microseconds($0 / 2), Self.minInterval) : nil }
    }

    /// Assignments, a line each: `READY=1`. Who does not listen does not matter.
    package func notify(_ assignments: String...) {
        try? socket?.send(assignments.joined(separator: "\n"))
    }
}

/// A datagram socket to a Unix address: the system log, the service manager. It never blocks for long.
package final class DatagramSocket {
    private let descriptor: Int32

    /// - Parameter address: a path, or `@` and an abstract name (unix(7)).
    /// - Throws: `Errno` where nobody listens there.
    package init(address: String) throws(Errno) {
        let file = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        descriptor = file
        guard let target = SocketAddress(unix: address) else { throw .invalidArgument }
        // A listener that is stuck must not take the run with it: a full queue is waited for that long.
        try? SocketOption.sendTimeout.set(timeval(tv_sec: 0, tv_usec: 200_000), on: file)
        try target.apply(to: file, connect)
    }

    deinit {
        close(descriptor)
    }

    package func send(_ text: String) throws(Errno) {
        var text = text
        let count = text.withUTF8 { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        guard count >= 0 else { throw Errno(rawValue: errno) }
    }
}

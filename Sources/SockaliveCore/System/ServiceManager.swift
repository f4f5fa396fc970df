import Glibc
import SystemPackage

/// The service manager that started this process and wants status messages (sd_notify(3)).
package struct ServiceManager {
    private let socket: DatagramSocket?
    /// How often to send a watchdog message: half of the manager's timeout, and at least ``minInterval``.
    package let watchdogInterval: Duration?
    /// A shorter interval would leave no time to sleep.
    static let minInterval = Duration.milliseconds(100)

    /// - Parameters:
    ///   - address: NOTIFY_SOCKET.
    ///   - watchdogMicroseconds: WATCHDOG_USEC.
    ///   - watchdogProcess: WATCHDOG_PID. The watchdog of another process is ignored.
    package init(address: String?, watchdogMicroseconds: String?, watchdogProcess: String?, ownProcess: Int32) {
        socket = address.flatMap { try? DatagramSocket(address: $0) }
        let isForThisProcess = watchdogProcess.map { $0.utf8.decimal() == ownProcess } ?? true
        let microseconds = isForThisProcess ? watchdogMicroseconds.flatMap { $0.utf8.decimal(Int64.self) } : nil
        watchdogInterval = microseconds.flatMap { $0 > 0 ? max(.microseconds($0 / 2), Self.minInterval) : nil }
    }

    /// Sends assignments, one a line: `READY=1`. Errors are ignored: the run does not depend on the manager.
    package func notify(_ assignments: String...) {
        try? socket?.send(assignments.joined(separator: "\n"))
    }
}

/// A datagram socket to a Unix address, for the system log or the service manager. A send blocks for 0.2 s at most.
package final class DatagramSocket {
    private let descriptor: Int32

    /// - Parameter address: a path, or `@` and an abstract name (unix(7)).
    /// - Throws: `Errno` if no socket listens at the address.
    package init(address: String) throws(Errno) {
        let file = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        descriptor = file
        guard let target = SocketAddress(unix: address) else { throw .invalidArgument }
        // A full queue blocks the send for this time at most, so a stuck listener cannot block the run.
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

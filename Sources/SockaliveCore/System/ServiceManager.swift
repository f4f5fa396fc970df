import SystemPackage

/// The service manager that started this process and wants to hear of it (sd_notify(3)).
public struct ServiceManager {
    private let socket: DatagramSocket?
    /// It wants a sign of life at least that often; half of what it waits for, and no less than ``minInterval``.
    public let watchdogInterval: Duration?
    /// Who asks for more would leave no time to sleep.
    static let minInterval = Duration.milliseconds(100)

    /// - Parameters:
    ///   - address: NOTIFY_SOCKET.
    ///   - watchdogMicroseconds: WATCHDOG_USEC.
    ///   - watchdogProcess: WATCHDOG_PID; another process's watchdog is none of ours.
    public init(address: String?, watchdogMicroseconds: String?, watchdogProcess: String?, ownProcess: Int32) {
        socket = address.flatMap { try? DatagramSocket(address: $0) }
        let isForThisProcess = watchdogProcess.map { $0.utf8.decimal() == ownProcess } ?? true
        let microseconds = isForThisProcess ? watchdogMicroseconds.flatMap { $0.utf8.decimal(Int64.self) } : nil
        watchdogInterval = microseconds.flatMap { $0 > 0 ? max(.microseconds($0 / 2), Self.minInterval) : nil }
    }

    /// Assignments, a line each: `READY=1`. Who does not listen does not matter.
    public func notify(_ assignments: String...) {
        try? socket?.send(assignments.joined(separator: "\n"))
    }
}

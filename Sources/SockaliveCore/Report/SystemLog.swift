import Glibc
import SystemPackage

/// The system log (syslog(3)): facility daemon, ident sockalive, one datagram a line.
///
/// Not by syslog(3): that is variadic, and it waits for as long as a stuck logger likes.
public final class SystemLog {
    /// Why lines are lost, if they are.
    public private(set) var error: Errno?
    private var socket: DatagramSocket?

    public init() {}

    public func write(_ line: LogLine) {
        // Who did not answer once is not waited for again.
        guard error == nil else { return }
        do throws(Errno) {
            try send(Self.datagram(line, at: time(nil)))
        } catch {
            self.error = error
            socket = nil
        }
    }

    /// Writes what is due; what the logger does not take stays due.
    public func write(_ results: [SocketResult], _ throttle: inout FailureThrottle) {
        for result in throttle.due(results) {
            guard let line = LogLine(result) else { continue }
            write(line)
            if error != nil { throttle.forget(result) }
        }
    }

    private func send(_ datagram: String) throws(Errno) {
        if let socket {
            do throws(Errno) {
                return try socket.send(datagram)
            } catch .wouldBlock {
                throw .wouldBlock
            } catch {
                // The logger was restarted since: the same address leads to another socket.
            }
        }
        let fresh = try DatagramSocket(address: "/dev/log")
        try fresh.send(datagram)
        socket = fresh
    }

    /// The next line is tried anew: a logger may have been restarted.
    public func forgetError() {
        error = nil
    }

    /// `<priority>Mmm dd hh:mm:ss ident[pid]: text` in local time, as syslog(3) sends it (RFC 3164, 4.1).
    static func datagram(_ line: LogLine, at now: time_t) -> String {
        let daemon: Int32 = 3 << 3
        var now = now
        var parts = tm()
        localtime_r(&now, &parts)
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let day = padded(parts.tm_mday, " ")
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map { padded($0, "0") }.joined(separator: ":")
        return "<\(daemon | line.severity.rawValue)>\(months[Int(parts.tm_mon)]) \(day) \(clock) "
            + "sockalive[\(getpid())]: \(line.text)"
    }

    private static func padded(_ number: Int32, _ filler: String) -> String {
        number < 10 ? "\(filler)\(number)" : "\(number)"
    }
}

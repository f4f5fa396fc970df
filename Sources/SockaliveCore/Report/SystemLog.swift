import Glibc
import SystemPackage

/// The system log (syslog(3)): facility daemon, ident sockalive, one datagram a line.
///
/// The C function syslog(3) is not used: it is variadic, and a stuck logger blocks it without limit.
package final class SystemLog {
    /// Why lines are lost; nil if none is.
    package private(set) var error: Errno?
    private var socket: DatagramSocket?

    package init() {}

    package func write(_ line: LogLine) {
        // After a failure the logger is not tried again until forgetError.
        guard error == nil else { return }
        do throws(Errno) {
            try send(Self.datagram(line, at: time(nil)))
        } catch {
            self.error = error
            socket = nil
        }
    }

    /// Writes the results that are due. A result that the logger does not accept stays due.
    package func write(_ results: [SocketResult], _ throttle: inout FailureThrottle) {
        for result in throttle.due(results) {
            guard let line = LogLine(result) else { continue }
            write(line)
            if error != nil { throttle.forget(result) }
        }
    }

    /// The same for matching processes that could not be looked at.
    package func write(_ failures: [ProcessFailure], _ throttle: inout FailureThrottle) {
        for failure in throttle.due(processes: failures) {
            write(LogLine(failure))
            if error != nil { throttle.forget(failure) }
        }
    }

    private func send(_ datagram: String) throws(Errno) {
        if let socket {
            do throws(Errno) {
                return try socket.send(datagram)
            } catch .wouldBlock {
                throw .wouldBlock
            } catch {
                // The logger was restarted: the address now leads to another socket.
            }
        }
        let fresh = try DatagramSocket(address: "/dev/log")
        try fresh.send(datagram)
        socket = fresh
    }

    /// Makes the next line try again: the logger may have been restarted.
    package func forgetError() {
        error = nil
    }

    /// `<priority>Mmm dd hh:mm:ss ident[pid]: text` in local time, as syslog(3) sends it (RFC 3164, 4.1).
    static func datagram(_ line: LogLine, at now: time_t) -> String {
        var now = now
        var parts = tm()
        localtime_r(&now, &parts)
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let day = padded(parts.tm_mday, " ")
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map { padded($0, "0") }.joined(separator: ":")
        return "<\(LOG_DAEMON | line.severity.level)>\(months[Int(parts.tm_mon)]) \(day) \(clock) "
            + "sockalive[\(getpid())]: \(line.text)"
    }

    private static func padded(_ number: Int32, _ filler: String) -> String {
        number < 10 ? "\(filler)\(number)" : "\(number)"
    }
}

/// One change or failure for the system log, as `key=value` pairs. No process can forge a pair.
package struct LogLine: Equatable, Sendable {
    package enum Severity: Sendable {
        case error, warning, info

        /// The number that syslog(3) uses.
        var level: Int32 {
            switch self {
            case .error: LOG_ERR
            case .warning: LOG_WARNING
            case .info: LOG_INFO
            }
        }
    }

    package let severity: Severity
    package private(set) var text: String

    private init(_ severity: Severity, _ event: String) {
        self.severity = severity
        text = "event=\(event)"
    }

    package init(_ process: ProcessFailure) {
        self.init(.error, "failed")
        add("pid", "\(process.pid)")
        if let name = process.name { text += " process=\(Self.quoted(name))" }
        add("code", process.failure.code)
        add("message", process.failure.message)
    }

    /// What a result has to say; nil where nothing was changed and nothing failed.
    package init?(_ result: SocketResult) {
        if let failure = result.failure {
            self.init(.error, "failed")
            add(result.socket)
            add("code", failure.code)
            add("message", failure.message)
            if let remedy = failure.remedy { add("remedy", remedy) }
        } else if result.isSilent {
            self.init(.warning, "silent")
            add(result.socket)
        } else if result.action == .set {
            let risk = result.userTimeoutRisk
            self.init(risk == nil ? .info : .warning, "set")
            add(result.socket)
            if let before = result.before { add("before", before.brief) }
            if let after = result.after { add("after", after.brief) }
            if let method = result.method { add("method", method.rawValue) }
            if let risk {
                add("message", risk.message)
                add("remedy", risk.remedy)
            }
        } else {
            return nil
        }
    }

    /// A failure that does not belong to a socket.
    package init(failure message: String) {
        self.init(.error, "failed")
        add("message", message)
    }

    private mutating func add(_ socket: DiscoveredSocket) {
        add("pid", "\(socket.process.pid)")
        // Always in quotes: a name can be empty, and it can look like a key.
        text += " process=\(Self.quoted(socket.process.name))"
        if let place = socket.process.place { add(place) }
        if let holder = socket.holder { add("fd", "\(holder.fd)") }
        add("local", socket.row.localDescription)
        if socket.row.state.hasPeer { add("remote", socket.row.remoteDescription) }
    }

    /// In quotes where others chose the words.
    private mutating func add(_ place: ProcessPlace) {
        if let unit = place.unit { add("unit", unit) }
        if let container = place.containerLabel { text += " container=\(Self.quoted(container))" }
        if let pod = place.podLabel { text += " pod=\(Self.quoted(pod))" }
    }

    private mutating func add(_ key: String, _ value: String) {
        let isPlain = !value.isEmpty && value.utf8.allSatisfy(Self.isPlain)
        text += " \(key)=\(isPlain ? value : Self.quoted(UntrustedText(value)))"
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"):
            true
        default: ".:/_-[]%".utf8.contains(byte)
        }
    }

    /// Escaping has doubled each backslash, so `\"` can only be a quote that belongs to the value.
    private static func quoted(_ text: UntrustedText) -> String {
        "\"" + text.escaped.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\\\"") + "\""
    }
}

extension KeepaliveSettings {
    /// `600/60/50`, or `off`.
    package var brief: String { enabled ? "\(idle)/\(interval)/\(count)" : "off" }
}

extension TimerReading {
    /// `600/?/?`, or `off`.
    package var brief: String { enabled ? "\(idle.map { "\($0)" } ?? "?")/?/?" : "off" }
}

extension SocketResult {
    /// The connection was probed, and its peer did not answer.
    package var isSilent: Bool { probe?.answered == false && failure == nil }

    /// Keepalive is on, or would be, and the socket's user timeout makes a lost probe the end of the connection.
    package var userTimeoutRisk: UserTimeoutRisk? {
        guard request.wanted.enabled, failure == nil else { return nil }
        return planned.flatMap { UserTimeoutRisk($0, against: request.firewallTimeout) }
    }
}

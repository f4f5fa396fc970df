import CSockalive
import Glibc

/// Decides between two sockets whether the run must stop: its time is up, or a signal came.
package struct RunControl: Sendable {
    private let limit: (time: Seconds, deadline: ContinuousClock.Instant)?

    /// - Parameter limit: the run's time limit; nil is none.
    package init(limit: Seconds?) {
        self.limit = limit.map { ($0, .now + .seconds($0.count)) }
    }

    /// The time of the whole run.
    var timeLimit: Duration? { limit.map { .seconds($0.time.count) } }

    package var stopReason: StopReason? { stopReason(ahead: .zero) }

    /// - Parameter ahead: the time that the next step takes.
    func stopReason(ahead: Duration) -> StopReason? {
        switch sockalive_stop_signal() {
        case 0: limit.flatMap { ContinuousClock.now + ahead >= $0.deadline ? .timeout($0.time) : nil }
        case SIGHUP: .signal("SIGHUP")
        case SIGINT: .signal("SIGINT")
        case SIGTERM: .signal("SIGTERM")
        case let number: .signal("signal \(number)")
        }
    }

    /// From now on SIGINT, SIGTERM and SIGHUP end a run between two sockets, never within one. SIGPIPE is ignored, so a
    /// closed pipe does not kill the run.
    package static func catchSignals() {
        _ = sockalive_install_stop_handlers()
    }

    /// From now on these signals end the process at once: all work is done, and only a reader is waited for.
    package static func releaseSignals() {
        sockalive_restore_stop_handlers()
    }

    /// From now on SIGHUP ends a sleep and does not end the run.
    package static func wakeOnHangup() {
        _ = sockalive_wake_on_hangup()
    }

    /// Whether SIGHUP came since the last call.
    package static func takeHangup() -> Bool {
        guard isHangupPending else { return false }
        sockalive_take_hangup()
        return true
    }

    package static var isHangupPending: Bool { sockalive_is_hung_up() }

    /// Sleeps for `duration`, or until a signal comes. A signal just before the sleep ends it, too.
    package static func sleep(_ duration: Duration) {
        sockalive_sleep(max(0, duration.wholeNanoseconds))
    }
}

/// Seconds since boot, sleep included: nobody sets that clock.
var bootSeconds: Int { bootMilliseconds / 1000 }

/// The same in milliseconds.
package var bootMilliseconds: Int {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// A whole number of seconds, written `90`, `90s`, `15m`, `2h` or `1h30m`.
package struct Seconds: Hashable, Comparable, BitwiseCopyable, Sendable {
    package let count: Int

    package init(_ count: Int) {
        self.count = count
    }

    /// Parses a duration; nil for any other text, for zero, and for a century or more.
    package init?(parsing text: String) {
        var rest = Array(text.utf8)[...]
        var total = 0
        if let plain = rest.decimal(Int.self) {
            total = plain
        } else {
            guard !rest.isEmpty else { return nil }
            for (unit, factor) in [("h", 3600), ("m", 60), ("s", 1)] {
                guard let end = rest.firstIndex(of: unit.utf8.first!) else { continue }
                guard let number = rest[..<end].decimal(Int.self), number < Self.limit else { return nil }
                total += number * factor
                rest = rest[(end + 1)...]
            }
            guard rest.isEmpty else { return nil }
        }
        guard (1..<Self.limit).contains(total) else { return nil }
        count = total
    }

    /// A century: longer than any firewall's timeout, and small enough that no sum overflows.
    private static let limit = 100 * 366 * 86_400

    package static func < (left: Seconds, right: Seconds) -> Bool {
        left.count < right.count
    }
}

extension Seconds: CustomStringConvertible {
    /// `42m10s`, `1h`, `5s`. Units that are zero are left out; so are the seconds of an hour or more, if zero.
    package var description: String {
        var text = ""
        if count >= 3600 { text += "\(count / 3600)h" }
        if count / 60 % 60 > 0 { text += "\(count / 60 % 60)m" }
        if count % 60 > 0 || count == 0 { text += "\(count % 60)s" }
        return text
    }
}

extension Duration {
    package var milliseconds: Double { self / .milliseconds(1) }

    /// Rounded towards zero.
    var wholeNanoseconds: Int64 { components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000 }

    /// Rounded to the nearest microsecond.
    var wholeMicroseconds: Int { Int((wholeNanoseconds + 500) / 1000) }
}

/// Why a run ends before its last socket.
package enum StopReason: Error, Equatable, Sendable {
    case timeout(Seconds)
    case signal(String)
}

/// A whole number of seconds, written `90`, `90s`, `15m`, `2h` or `1h30m`.
public struct Seconds: Hashable, Comparable, Sendable {
    public let count: Int

    public init(_ count: Int) {
        self.count = count
    }

    /// Reads a duration; nil for anything else, zero and a century or more included.
    public init?(parsing text: String) {
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

    /// A century: longer than any firewall waits, small enough that no sum overflows.
    private static let limit = 100 * 366 * 86_400

    public static func < (left: Seconds, right: Seconds) -> Bool {
        left.count < right.count
    }
}

extension Seconds: CustomStringConvertible {
    /// `42m10s`, `1h`, `5s`: no unit that is zero, seconds left out from an hour on only if zero.
    public var description: String {
        var text = ""
        if count >= 3600 { text += "\(count / 3600)h" }
        if count / 60 % 60 > 0 { text += "\(count / 60 % 60)m" }
        if count % 60 > 0 || count == 0 { text += "\(count % 60)s" }
        return text
    }
}

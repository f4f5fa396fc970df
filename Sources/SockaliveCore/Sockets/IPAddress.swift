import Glibc

/// An IPv4 or IPv6 address. Two words and no array: a busy table has ten thousand of them.
package struct IPAddress: Hashable, BitwiseCopyable, Sendable {
    package enum Family: String, BitwiseCopyable, Sendable {
        case ipv4, ipv6
    }

    package let family: Family
    /// The address as a number. The first byte on the wire is the most significant; IPv4 is in the lowest 32 bits.
    private let high: UInt64
    private let low: UInt64

    init(ipv4 number: UInt32) {
        family = .ipv4
        high = 0
        low = UInt64(number)
    }

    init(ipv6 high: UInt64, _ low: UInt64) {
        family = .ipv6
        self.high = high
        self.low = low
    }

    /// 4 or 16 bytes in network byte order; nil for any other count.
    package init?(bytes: some Sequence<UInt8>) {
        var high: UInt64 = 0
        var low: UInt64 = 0
        var count = 0
        for byte in bytes {
            high = high << 8 | low >> 56
            low = low << 8 | UInt64(byte)
            count += 1
        }
        switch count {
        case 4: self.init(ipv4: UInt32(truncatingIfNeeded: low))
        case 16: self.init(ipv6: high, low)
        default: return nil
        }
    }

    /// Parses `192.0.2.1`, `2001:db8::1`, `::ffff:192.0.2.1` (inet_pton(3)).
    package init?(_ text: String) {
        var v4 = in_addr()
        var v6 = in6_addr()
        if inet_pton(AF_INET, text, &v4) == 1 {
            self.init(ipv4: UInt32(bigEndian: v4.s_addr))
        } else if inet_pton(AF_INET6, text, &v6) == 1 {
            guard let address = withUnsafeBytes(of: v6, { IPAddress(bytes: $0) }) else { return nil }
            self = address
        } else {
            return nil
        }
    }

    /// 4 or 16 bytes in network byte order.
    package var bytes: [UInt8] {
        let all = withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) { Array($0) }
        return family == .ipv4 ? Array(all.suffix(4)) : all
    }

    /// The IPv4 address inside a v4-mapped one (RFC 4291, 2.5.5.2); any other address is returned unchanged.
    package var unmapped: IPAddress {
        guard family == .ipv6, high == 0, low >> 32 == 0xffff else { return self }
        return IPAddress(ipv4: UInt32(truncatingIfNeeded: low))
    }

    /// fe80::/10 (RFC 4291, 2.5.6): each link has these addresses anew.
    package var isLinkLocal: Bool { family == .ipv6 && high >> 54 == 0xfe80 >> 6 }

    fileprivate var bitCount: Int { family == .ipv4 ? 32 : 128 }

    fileprivate func hasPrefix(of other: IPAddress, bits: Int) -> Bool {
        guard family == other.family else { return false }
        // Swift allows a shift by the whole width: the result is zero, so nothing differs.
        let lowDifference = (low ^ other.low) >> UInt64(Swift.min(64, bitCount - bits))
        let highDifference = (high ^ other.high) >> UInt64(Swift.max(0, 64 - bits))
        return family == .ipv4 ? lowDifference == 0 : highDifference == 0 && (bits <= 64 || lowDifference == 0)
    }
}

extension IPAddress: CustomStringConvertible {
    package var description: String {
        family == .ipv4 ? ipv4Text : ipv6Text
    }

    private var ipv4Text: String {
        String(unsafeUninitializedCapacity: 15) { text in
            var count = 0
            for shift in [24, 16, 8, 0] as [UInt64] {
                let byte = UInt8(truncatingIfNeeded: low >> shift)
                if count > 0 { text.append(UInt8(ascii: "."), &count) }
                if byte >= 100 { text.append(UInt8(ascii: "0") + byte / 100, &count) }
                if byte >= 10 { text.append(UInt8(ascii: "0") + byte / 10 % 10, &count) }
                text.append(UInt8(ascii: "0") + byte % 10, &count)
            }
            return count
        }
    }

    private var ipv6Text: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { text in
            bytes.withUnsafeBytes {
                _ = inet_ntop(AF_INET6, $0.baseAddress, text.baseAddress!, socklen_t(text.count))
            }
            return String(cString: text.baseAddress!)
        }
    }
}

extension UnsafeMutableBufferPointer<UInt8> {
    fileprivate func append(_ byte: UInt8, _ count: inout Int) {
        self[count] = byte
        count += 1
    }
}

/// An address and port: one end of a connection.
package struct Endpoint: Hashable, BitwiseCopyable, Sendable, CustomStringConvertible {
    package let address: IPAddress
    package let port: UInt16

    package init(address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// `192.0.2.1:5633`, `[2001:db8::1]:5633`. A v4-mapped address is shown as IPv4.
    package var description: String { description(scope: nil) }

    /// `[fe80::1%eth0]:5633` (RFC 4007, 11).
    func description(scope: NetworkInterface?) -> String {
        let shown = address.unmapped
        let zone = scope.map { "%\($0.label.escaped)" } ?? ""
        return shown.family == .ipv4 ? "\(shown):\(port)" : "[\(shown)\(zone)]:\(port)"
    }
}

/// An address range, as in `192.0.2.0/24`, or in `fe80::/10%eth0` of one link.
package struct AddressRange: Hashable, Sendable, CustomStringConvertible {
    package let base: IPAddress
    package let prefixLength: Int
    /// The name or the number of the interface; nil is every interface.
    package let interface: UntrustedText?

    /// Parses `ADDRESS` or `ADDRESS/PREFIX`; nil for any other text. A v4-mapped address counts as IPv4.
    ///
    /// `%INTERFACE` may follow a link-local address or its prefix.
    package init?(_ text: String) {
        let halves = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
        let zone =
            halves.count == 2 ? halves[1].split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false) : []
        // RFC 4007 writes the prefix behind the interface.
        let range = zone.count == 2 ? "\(halves[0])/\(zone[1])" : String(halves[0])
        guard zone.count < 2 || !halves[0].contains("/"), zone.first.map(NetworkInterface.isName) ?? true else {
            return nil
        }
        self.init(range: range, interface: zone.first.map { UntrustedText(String($0)) })
    }

    private init?(range text: String, interface: UntrustedText?) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = IPAddress(String(parts[0])) else { return nil }
        let base = address.unmapped
        let dropped = address.bitCount - base.bitCount
        var length = base.bitCount
        if parts.count == 2 {
            guard let given = parts[1].utf8.decimal(Int.self), (dropped...dropped + length).contains(given) else {
                return nil
            }
            length = given - dropped
        }
        // Of other addresses no interface is known.
        guard interface == nil || (base.isLinkLocal && length >= 10) else { return nil }
        self.base = base
        self.prefixLength = length
        self.interface = interface
    }

    package var description: String {
        "\(base)/\(prefixLength)" + (interface.map { "%\($0.escaped)" } ?? "")
    }

    package func contains(_ address: IPAddress) -> Bool {
        address.unmapped.hasPrefix(of: base, bits: prefixLength)
    }

    /// - Parameter interface: nil if it is not known.
    /// - Returns: nil if only the interface could tell.
    func contains(_ address: IPAddress, on interface: NetworkInterface?) -> Bool? {
        guard contains(address) else { return false }
        guard let wanted = self.interface else { return true }
        return interface.flatMap { $0.isCalled(wanted) }
    }
}

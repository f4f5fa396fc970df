import Glibc

/// An IPv4 or IPv6 address in network byte order.
public struct IPAddress: Hashable, Sendable {
    public enum Family: String, Sendable {
        case ipv4, ipv6
    }

    /// 4 or 16 bytes.
    public let bytes: [UInt8]

    public init?(bytes: some Sequence<UInt8>) {
        let bytes = Array(bytes)
        guard bytes.count == 4 || bytes.count == 16 else { return nil }
        self.bytes = bytes
    }

    /// Reads `192.0.2.1`, `2001:db8::1`, `::ffff:192.0.2.1` (inet_pton(3)).
    public init?(_ text: String) {
        var v4 = in_addr()
        var v6 = in6_addr()
        if inet_pton(AF_INET, text, &v4) == 1 {
            bytes = withUnsafeBytes(of: v4) { Array($0) }
        } else if inet_pton(AF_INET6, text, &v6) == 1 {
            bytes = withUnsafeBytes(of: v6) { Array($0) }
        } else {
            return nil
        }
    }

    public var family: Family { bytes.count == 4 ? .ipv4 : .ipv6 }

    /// The IPv4 address that a v4-mapped one (RFC 4291, 2.5.5.2) carries; any other address itself.
    public var unmapped: IPAddress {
        let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
        guard bytes.count == 16, bytes.starts(with: mapped) else { return self }
        return IPAddress(bytes: bytes.dropFirst(12)) ?? self
    }

    fileprivate func hasPrefix(of other: IPAddress, bits: Int) -> Bool {
        guard bytes.count == other.bytes.count else { return false }
        let whole = bits / 8
        guard bytes.prefix(whole) == other.bytes.prefix(whole) else { return false }
        guard bits % 8 > 0 else { return true }
        let mask = UInt8(truncatingIfNeeded: 0xff00 >> (bits % 8))
        return bytes[whole] & mask == other.bytes[whole] & mask
    }
}

extension IPAddress: CustomStringConvertible {
    public var description: String {
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        let family = bytes.count == 4 ? AF_INET : AF_INET6
        _ = bytes.withUnsafeBytes { inet_ntop(family, $0.baseAddress, &text, socklen_t(text.count)) }
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

/// An address and port: one end of a connection.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    public let address: IPAddress
    public let port: UInt16

    public init(address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// `192.0.2.1:5633`, `[2001:db8::1]:5633`; a v4-mapped address as the IPv4 one it carries.
    public var description: String {
        let shown = address.unmapped
        return shown.family == .ipv4 ? "\(shown):\(port)" : "[\(shown)]:\(port)"
    }
}

/// An address range, as in `192.0.2.0/24`.
public struct AddressRange: Hashable, Sendable {
    public let base: IPAddress
    public let prefixLength: Int

    /// Reads `ADDRESS` or `ADDRESS/PREFIX`; nil for anything else. A v4-mapped address counts as IPv4.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = IPAddress(String(parts[0])) else { return nil }
        let base = address.unmapped
        let dropped = (address.bytes.count - base.bytes.count) * 8
        var length = base.bytes.count * 8
        if parts.count == 2 {
            guard let given = parts[1].utf8.decimal(Int.self), (dropped...dropped + length).contains(given) else {
                return nil
            }
            length = given - dropped
        }
        self.base = base
        self.prefixLength = length
    }

    public func contains(_ address: IPAddress) -> Bool {
        address.unmapped.hasPrefix(of: base, bits: prefixLength)
    }
}

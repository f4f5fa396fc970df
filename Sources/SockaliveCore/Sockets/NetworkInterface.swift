import Glibc

/// An interface of the network namespace in which a socket lives. Another namespace has other interfaces under the same
/// numbers and names.
package struct NetworkInterface: Hashable, BitwiseCopyable, Sendable {
    package let index: UInt32
    /// The name has at most 15 bytes (IFNAMSIZ); the rest is 0. The first byte is the most significant.
    private var nameStart: UInt64 = 0
    private var nameEnd: UInt64 = 0

    package init(index: UInt32, name: UntrustedText? = nil) {
        self.index = index
        self.name = name
    }

    /// nil if the interface is gone, or if the kernel did not answer. The owner of the namespace chooses the name. It
    /// may have control characters (net/core/dev.c, dev_valid_name).
    package var name: UntrustedText? {
        get {
            let bytes = withUnsafeBytes(of: (nameStart.bigEndian, nameEnd.bigEndian)) { Array($0.prefix { $0 != 0 }) }
            return bytes.isEmpty ? nil : UntrustedText(bytes)
        }
        set {
            (nameStart, nameEnd) = (0, 0)
            for (position, byte) in (newValue?.bytes ?? []).prefix(Int(IFNAMSIZ) - 1).enumerated() {
                let bits = UInt64(byte) << UInt64(56 - position % 8 * 8)
                if position < 8 { nameStart |= bits } else { nameEnd |= bits }
            }
        }
    }

    /// Its name, else its number.
    package var label: UntrustedText { name ?? UntrustedText("\(index)") }

    /// Whether it is the one that a name, or the digits of a number, stand for; nil if that is not known.
    func isCalled(_ wanted: UntrustedText) -> Bool? {
        if wanted.bytes.decimal() == index { return true }
        return name.map { $0 == wanted }
    }

    /// The kernel's rule for names (net/core/dev.c, dev_valid_name); a number is one, too. `%` is for its own use.
    static func isName(_ text: some StringProtocol) -> Bool {
        let blanks = [UInt8(ascii: " ")] + Array(9...13)
        return (1..<Int(IFNAMSIZ)).contains(text.utf8.count) && text != "." && text != ".."
            && !text.utf8.contains { blanks.contains($0) || "/:%".utf8.contains($0) }
    }
}

/// Asks for the names of interfaces in the network namespace of a socket, which any kind of socket knows.
final class InterfaceNames {
    private let socket: Int32
    private var known: [UInt32: UntrustedText?] = [:]

    /// - Parameter socket: open for as long as somebody asks.
    init(socket: Int32) {
        self.socket = socket
    }

    /// The row with the name of its interface, where one of its addresses means nothing without it.
    func naming(_ row: SocketRow) -> SocketRow {
        guard let index = row.interface?.index, row.local.address.isLinkLocal || row.remote.address.isLinkLocal else {
            return row
        }
        var row = row
        row.interface?.name = name(of: index)
        return row
    }

    private func name(of index: UInt32) -> UntrustedText? {
        if let name = known[index] { return name }
        let name = ask(index)
        known.updateValue(name, forKey: index)
        return name
    }

    /// netdevice(7). if_indextoname(3) would ask in the namespace of this process.
    private func ask(_ index: UInt32) -> UntrustedText? {
        var request = ifreq()
        request.ifr_ifru.ifru_ivalue = Int32(bitPattern: index)
        guard ioctl(socket, UInt(SIOCGIFNAME), &request) == 0 else { return nil }
        return withUnsafeBytes(of: request.ifr_ifrn.ifrn_name) { UntrustedText($0.prefix { $0 != 0 }) }
    }
}

import Glibc

/// What a guard does: the value that its program reads from a map for each new connection. Pure.
package struct GuardSettings: Equatable, Sendable {
    /// Local or remote ports; nil is any.
    package var ports: Set<UInt16>?
    package var request: KeepaliveRequest
    /// Also where the program has chosen keepalive itself.
    package var overrides: Bool
    /// The words of the command line that name the place, such as `--unit agent.service`.
    package var place: String
    /// The cgroup's path when the guard was made, from the root of the hierarchy.
    package var path: String

    package init(ports: Set<UInt16>?, request: KeepaliveRequest, overrides: Bool, place: String, path: String) {
        self.ports = ports
        self.request = request
        self.overrides = overrides
        self.place = place
        self.path = path
    }

    /// By the same words, or of the same path.
    func isAtPlace(of other: GuardSettings) -> Bool { place == other.place || path == other.path }
}

/// How the settings lie in the map. The program and this program's other versions depend on it.
enum GuardLayout {
    /// Changes with the layout. A guard with another version gets a new program.
    static let version: UInt32 = 1

    static let versionOffset: Int16 = 0
    static let flagsOffset: Int16 = 4
    static let idleOffset: Int16 = 8
    static let intervalOffset: Int16 = 12
    static let countOffset: Int16 = 16
    /// Milliseconds.
    static let userTimeoutOffset: Int16 = 20
    private static let firewallTimeoutOffset = 24
    /// Which program reads them (``GuardProgram/fingerprint``). A program of another version is replaced.
    private static let programOffset = 28
    /// One bit a port: port 0 is the lowest bit of the first byte.
    static let portsOffset: Int16 = 32
    private static let portsSize = 65536 / 8
    private static let placeOffset = Int(portsOffset) + portsSize
    static let placeSize = 512
    private static let pathOffset = placeOffset + placeSize
    private static let pathSize = Int(PATH_MAX)
    static let size = pathOffset + pathSize

    struct Flags: OptionSet {
        let rawValue: UInt32
        static let anyPort = Flags(rawValue: 1)
        static let overrides = Flags(rawValue: 2)
        static let setsUserTimeout = Flags(rawValue: 4)
        /// A value was given explicitly (``KeepaliveRequest/isExact``). The program does not read it.
        static let isExact = Flags(rawValue: 8)
    }

    /// The bytes of the map's value. Longer texts are cut: they are for people.
    static func encode(_ settings: GuardSettings) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: size)
        var flags: Flags = []
        let wanted = settings.request.wanted
        if settings.ports == nil { flags.insert(.anyPort) }
        if settings.overrides { flags.insert(.overrides) }
        if wanted.userTimeout != nil { flags.insert(.setsUserTimeout) }
        if settings.request.isExact { flags.insert(.isExact) }
        bytes.withUnsafeMutableBytes { bytes in
            func put(_ number: UInt32, at offset: some BinaryInteger) {
                bytes.storeBytes(of: number, toByteOffset: Int(offset), as: UInt32.self)
            }
            put(version, at: versionOffset)
            put(flags.rawValue, at: flagsOffset)
            put(UInt32(wanted.idle), at: idleOffset)
            put(UInt32(wanted.interval), at: intervalOffset)
            put(UInt32(wanted.count), at: countOffset)
            put(UInt32(wanted.userTimeout ?? 0), at: userTimeoutOffset)
            put(UInt32(clamping: settings.request.firewallTimeout.count), at: firewallTimeoutOffset)
            put(GuardProgram.fingerprint, at: programOffset)
        }
        for port in settings.ports ?? [] { bytes[Int(portsOffset) + Int(port) / 8] |= 1 << (port % 8) }
        // The last byte of each text stays zero.
        for (text, offset, size) in [(settings.place, placeOffset, placeSize), (settings.path, pathOffset, pathSize)] {
            for (index, byte) in text.utf8.prefix(size - 1).enumerated() { bytes[offset + index] = byte }
        }
        return bytes
    }

    /// Whether the program that reads these bytes is the one that this version would load.
    static func isOfThisProgram(_ bytes: [UInt8]) -> Bool {
        bytes.count == size
            && bytes.withUnsafeBytes {
                $0.loadUnaligned(fromByteOffset: programOffset, as: UInt32.self) == GuardProgram.fingerprint
            }
    }

    /// nil: another version wrote them.
    static func decode(_ bytes: [UInt8]) -> GuardSettings? {
        guard bytes.count == size else { return nil }
        func number(_ offset: some BinaryInteger) -> UInt32 {
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: Int(offset), as: UInt32.self) }
        }
        func text(_ offset: Int, _ size: Int) -> String {
            String(decoding: bytes[offset..<(offset + size)].prefix { $0 != 0 }, as: UTF8.self)
        }
        guard number(versionOffset) == version else { return nil }
        let flags = Flags(rawValue: number(flagsOffset))
        let values = [idleOffset, intervalOffset, countOffset].map { Int(number($0)) }
        let isExact = flags.contains(.isExact)
        let ports = (1...UInt16.max).filter { bytes[Int(portsOffset) + Int($0) / 8] & 1 << ($0 % 8) != 0 }
        return GuardSettings(
            ports: flags.contains(.anyPort) ? nil : Set(ports),
            request: KeepaliveRequest(
                firewallTimeout: Seconds(Int(number(firewallTimeoutOffset))), idle: isExact ? values[0] : nil,
                interval: isExact ? values[1] : nil, count: isExact ? values[2] : nil,
                userTimeout: flags.contains(.setsUserTimeout) ? Int(number(userTimeoutOffset)) : nil),
            overrides: flags.contains(.overrides), place: text(placeOffset, placeSize), path: text(pathOffset, pathSize)
        )
    }
}

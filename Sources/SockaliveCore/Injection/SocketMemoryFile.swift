import Glibc
import SystemPackage

/// The file of a ``SocketMemory``: the boot, a line a socket, and at the end how many there are and a checksum of all
/// before. A file that is not whole, of another boot, or changed in any place says nothing.
extension SocketMemory {
    private static let title = "sockalive state 1 "
    private static let end = "end "
    /// Longer than any line.
    private static let maxLine = 256
    private static let maxFileSize = capacity * maxLine
    /// Longer than any machine runs; milliseconds.
    private static let maxTime = 1 << 53

    /// The memory that the file of an earlier run has; empty where there is none, or where it is not this user's.
    package init(file path: String) {
        self.init()
        guard let bytes = StateFile.read(path, limit: Self.maxFileSize), Self.canBeForgotten(path), let boot = Self.boot
        else { return }
        if let memory = SocketMemory(bytes, boot: boot) { self = memory }
    }

    /// A memory of nothing leaves no file.
    package func save(to path: String) throws(Errno) {
        if isEmpty { return Self.forget(path) }
        guard let boot = Self.boot else { throw .noSuchFileOrDirectory }
        try AtomicFile.write(text(boot: boot), to: path, mode: 0o600)
    }

    /// Before something is done to a socket that is remembered. A run that is killed meanwhile leaves no wrong memory.
    package static func forget(_ path: String) {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_uid == geteuid() else { return }
        unlink(path)
    }

    /// Whether the file could be replaced and removed. One that cannot be (chattr +i, a file system that was mounted
    /// read-only) may say what is no longer true.
    private static func canBeForgotten(_ path: String) -> Bool {
        let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        return access(path, W_OK) == 0 && access(folder, W_OK | X_OK) == 0
    }

    /// The kernel makes a random one at each boot (random(4)).
    private static var boot: String? {
        guard let procfs = try? ProcFS(), let text = procfs.text("sys/kernel/random/boot_id") else { return nil }
        let id = String(decoding: text.prefix { $0 > 0x20 && $0 < 0x7f }, as: UTF8.self)
        return id.isEmpty ? nil : id
    }

    // MARK: text

    func text(boot: String) -> String {
        let lines = entries.map { Self.line($0, $1) }.sorted()
        let body = Self.title + boot + "\n" + lines.joined()
        let sum = Self.checksum(body.utf8)
        return body + "\(Self.end)\(lines.count) \(String(sum, radix: 16))\n"
    }

    /// nil for any other bytes than those that ``text(boot:)`` made in the same boot.
    init?(_ bytes: [UInt8], boot: String) {
        self.init()
        guard bytes.last == UInt8(ascii: "\n") else { return nil }
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).dropLast()
        guard lines.count >= 2, let first = lines.first, let last = lines.last,
            first.elementsEqual((Self.title + boot).utf8), last.starts(with: Self.end.utf8)
        else { return nil }
        let fields = last.dropFirst(Self.end.utf8.count).split(
            separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard fields.count == 2, let count: Int = fields[0].decimal(), count == lines.count - 2,
            count <= Self.capacity, let sum: UInt64 = fields[1].hexadecimal(),
            sum == Self.checksum(bytes[..<last.startIndex])
        else { return nil }
        for line in lines.dropFirst().dropLast() {
            guard let (key, entry) = Self.entry(line) else { return nil }
            entries[key] = entry
        }
    }

    /// FNV-1a of 64 bits: against what has happened to a file, not against its owner.
    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt64 {
        var sum: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { sum = (sum ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return sum
    }

    private static func line(_ key: Key, _ entry: Entry) -> String {
        let settings = entry.settings
        let numbers = [
            settings.enabled ? 1 : 0, Int(settings.idle), Int(settings.interval), Int(settings.count),
            Int(settings.userTimeout), entry.readAt, entry.activeAt,
        ]
        let cookie = entry.cookie.map { "\($0)" } ?? "-"
        return "\(key.networkNamespace) \(key.inode) \(cookie) \(text(key.local)) \(text(key.remote)) "
            + numbers.map { "\($0)" }.joined(separator: " ") + "\n"
    }

    private static func text(_ end: Endpoint) -> String {
        let digits = Array("0123456789abcdef".utf8)
        let address = end.address.bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
        return String(decoding: address, as: UTF8.self) + ":\(end.port)"
    }

    private static func entry(_ line: ArraySlice<UInt8>) -> (Key, Entry)? {
        let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard fields.count == 12, let namespace: UInt64 = fields[0].decimal(), let inode: UInt64 = fields[1].decimal(),
            let local = endpoint(fields[3]), let remote = endpoint(fields[4]),
            let enabled: UInt8 = fields[5].decimal(), enabled <= 1,
            let idle: Int32 = fields[6].decimal(), let interval: Int32 = fields[7].decimal(),
            let count: Int32 = fields[8].decimal(), let userTimeout: Int32 = fields[9].decimal(),
            let readAt = time(fields[10]), let activeAt = time(fields[11])
        else { return nil }
        let hasCookie = !fields[2].elementsEqual("-".utf8)
        let cookie: UInt64? = hasCookie ? fields[2].decimal() : nil
        let seconds = KeepaliveSettings.secondsRange
        guard hasCookie == (cookie != nil), seconds.contains(Int(idle)), seconds.contains(Int(interval)),
            KeepaliveSettings.countRange.contains(Int(count)), count != KeepaliveSettings.probeMarker
        else { return nil }
        let settings = KeepaliveSettings(
            enabled: enabled == 1, idle: idle, interval: interval, count: count, userTimeout: userTimeout)
        return (
            Key(networkNamespace: namespace, inode: inode, local: local, remote: remote),
            Entry(cookie: cookie, settings: settings, readAt: readAt, activeAt: activeAt)
        )
    }

    /// Negative where a connection has been idle since before this machine's clock began (a restored container).
    private static func time(_ field: ArraySlice<UInt8>) -> Int? {
        let isNegative = field.first == UInt8(ascii: "-")
        guard let number: Int = (isNegative ? field.dropFirst() : field).decimal(), number < maxTime else { return nil }
        return isNegative ? -number : number
    }

    private static func endpoint(_ field: ArraySlice<UInt8>) -> Endpoint? {
        let parts = field.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard parts.count == 2, [8, 32].contains(parts[0].count), let port: UInt16 = parts[1].decimal() else {
            return nil
        }
        var bytes: [UInt8] = []
        for start in stride(from: parts[0].startIndex, to: parts[0].endIndex, by: 2) {
            guard let byte: UInt8 = parts[0][start..<start + 2].hexadecimal() else { return nil }
            bytes.append(byte)
        }
        return IPAddress(bytes: bytes).map { Endpoint(address: $0, port: port) }
    }
}

/// One change or failure as the system log shows it: `key=value`, of which no process can forge one.
public struct LogLine: Equatable, Sendable {
    public enum Severity: Int32, Sendable {
        case error = 3
        case warning = 4
        case info = 6
    }

    public let severity: Severity
    public private(set) var text: String

    private init(_ severity: Severity, _ event: String) {
        self.severity = severity
        text = "event=\(event)"
    }

    /// What a result has to say; nil where nothing was changed and nothing failed.
    public init?(_ result: SocketResult) {
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
            self.init(.info, "set")
            add(result.socket)
            if let before = result.before { add("before", before.brief) }
            if let after = result.after { add("after", after.brief) }
            if let method = result.method { add("method", method.rawValue) }
        } else {
            return nil
        }
    }

    /// A failure that is not a socket's.
    public init(failure message: String) {
        self.init(.error, "failed")
        add("message", message)
    }

    private mutating func add(_ socket: DiscoveredSocket) {
        add("pid", "\(socket.process.pid)")
        // Always in quotes: a name can be empty, and it can look like a key.
        text += " process=\(Self.quoted(socket.process.name))"
        if let holder = socket.holders.first { add("fd", "\(holder.fd)") }
        add("local", "\(socket.row.local)")
        if socket.row.state == .established { add("remote", "\(socket.row.remote)") }
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
        default: ".:/_-[]".utf8.contains(byte)
        }
    }

    /// Escaping has doubled each backslash, so `\"` can only be a quote of the value itself.
    private static func quoted(_ text: UntrustedText) -> String {
        "\"" + text.escaped.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\\\"") + "\""
    }
}

extension KeepaliveSettings {
    /// `600/60/50`, or `off`.
    public var brief: String { enabled ? "\(idle)/\(interval)/\(count)" : "off" }
}

extension SocketResult {
    /// It was asked, and its peer did not answer.
    public var isSilent: Bool { probe?.answered == false && failure == nil }
}

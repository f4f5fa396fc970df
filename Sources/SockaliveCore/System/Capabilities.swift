/// The effective capabilities (capabilities(7)) that matter here.
struct Capabilities: OptionSet, Sendable {
    let rawValue: UInt64

    /// To read `/proc/PID/fd` of other users' processes: the folder is theirs alone.
    static let dacReadSearch = Capabilities(rawValue: 1 << 2)
    static let sysPtrace = Capabilities(rawValue: 1 << 19)
    /// To suspend a target's seccomp filter, and to enter its network namespace.
    static let sysAdmin = Capabilities(rawValue: 1 << 21)
}

extension Capabilities {
    /// - Parameter status: the text of `/proc/PID/status`.
    init(status: [UInt8]) {
        let line = status.split(separator: UInt8(ascii: "\n")).first { $0.starts(with: "CapEff:\t".utf8) }
        self.init(rawValue: line?.dropFirst(8).hexadecimal() ?? 0)
    }
}

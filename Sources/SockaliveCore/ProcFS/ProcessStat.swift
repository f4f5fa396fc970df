/// What `/proc/PID/stat` says (proc_pid_stat(5)). Pure: bytes in, values out.
public struct ProcessStat: Equatable, Sendable {
    public let name: UntrustedText
    /// `R`, `S`, `D`, `Z`, `T` (stopped), `t` (traced) …
    public let state: Character
    /// Start time in clock ticks since boot; with the PID it names a process.
    public let startTime: UInt64

    /// The name may hold spaces, brackets and line ends: it ends at the *last* `)`.
    public init?(_ bytes: some BidirectionalCollection<UInt8>) {
        guard let open = bytes.firstIndex(of: UInt8(ascii: "(")),
            let close = bytes.lastIndex(of: UInt8(ascii: ")")), open < close
        else { return nil }
        name = UntrustedText(bytes[bytes.index(after: open)..<close])
        let fields = bytes[bytes.index(after: close)...].split(separator: UInt8(ascii: " "), maxSplits: 21)
        // Field 3 is the state, field 22 the start time.
        guard fields.count > 19, let state = fields[0].first, fields[0].count == 1,
            let startTime = fields[19].decimal(UInt64.self)
        else { return nil }
        self.state = Character(UnicodeScalar(state))
        self.startTime = startTime
    }
}

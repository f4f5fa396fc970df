/// Readers of `/proc/PID/stat` and `/proc/PID/status`. Pure: bytes in, values out.

/// What `/proc/PID/stat` says (proc_pid_stat(5)).
public struct ProcessStat: Equatable, Sendable {
    public let name: ForeignText
    /// `R`, `S`, `D`, `Z`, `T` (stopped), `t` (traced) …
    public let state: Character
    /// Start time in clock ticks since boot; with the PID it names a process.
    public let startTime: UInt64

    /// The name may hold spaces, brackets and line ends: it ends at the *last* `)`.
    public init?(_ bytes: some BidirectionalCollection<UInt8>) {
        guard let open = bytes.firstIndex(of: UInt8(ascii: "(")),
            let close = bytes.lastIndex(of: UInt8(ascii: ")")), open < close
        else { return nil }
        name = ForeignText(bytes[bytes.index(after: open)..<close])
        let fields = bytes[bytes.index(after: close)...].split(separator: UInt8(ascii: " "), maxSplits: 21)
        // Field 3 is the state, field 22 the start time.
        guard fields.count > 19, let state = fields[0].first, fields[0].count == 1,
            let startTime = fields[19].decimal(UInt64.self)
        else { return nil }
        self.state = Character(UnicodeScalar(state))
        self.startTime = startTime
    }
}

/// What `/proc/PID/status` says (proc_pid_status(5)), as far as it is asked here.
public struct ProcessStatus: Equatable, Sendable {
    /// The effective user, whose rights the process acts with.
    public let uid: UInt32
    /// The process that traces this one; 0 for none.
    public let tracer: Int32
    /// 0 none, 1 strict, 2 filter.
    public let seccomp: Int

    /// A process writes its own name into the first line; the kernel escapes line ends there
    /// (fs/proc/array.c, proc_task_name), so no name can forge another line.
    public init?(_ bytes: some BidirectionalCollection<UInt8>) {
        var uid: UInt32?
        var tracer: Int32 = 0
        var seccomp = 0
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(maxSplits: 5) { $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: " ") }
            guard words.count >= 2 else { continue }
            if words[0].elementsEqual("Uid:".utf8), words.count >= 3 {
                uid = words[2].decimal()
            } else if words[0].elementsEqual("TracerPid:".utf8) {
                tracer = words[1].decimal() ?? 0
            } else if words[0].elementsEqual("Seccomp:".utf8) {
                seccomp = words[1].decimal() ?? 0
            }
        }
        guard let uid else { return nil }
        self.uid = uid
        self.tracer = tracer
        self.seccomp = seccomp
    }
}

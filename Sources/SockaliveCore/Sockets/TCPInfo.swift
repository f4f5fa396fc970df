/// State of one connection: struct tcp_info (include/uapi/linux/tcp.h), as far as it is asked here.
struct TCPInfo: Equatable, Sendable {
    /// Up to tcpi_segs_out, which came in Linux 4.2; the 104 bytes before it are ten years older.
    static let byteCount = 144

    let state: UInt8
    /// Keepalive probes (or zero-window probes) since the last ACK.
    let probesOutstanding: Int
    /// Segments that the peer has not acknowledged yet.
    let segmentsInFlight: Int
    /// It means nothing before the first data.
    let millisecondsSinceData: Int
    let millisecondsSinceAck: Int
    /// All segments that ever left, probes included; nil where the kernel is too old to count them.
    let segmentsSent: UInt32?

    /// nil where the kernel gave less than every kernel gives.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= 60 else { return nil }
        func number(_ offset: Int) -> Int { Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
        state = bytes[0]
        probesOutstanding = Int(bytes[3])
        segmentsInFlight = number(24)
        millisecondsSinceData = number(52)
        millisecondsSinceAck = number(56)
        segmentsSent = bytes.count >= 140 ? bytes.loadUnaligned(fromByteOffset: 136, as: UInt32.self) : nil
    }

    init(
        state: UInt8 = 1, probesOutstanding: Int = 0, segmentsInFlight: Int = 0, millisecondsSinceData: Int,
        millisecondsSinceAck: Int, segmentsSent: UInt32? = nil
    ) {
        self.state = state
        self.probesOutstanding = probesOutstanding
        self.segmentsInFlight = segmentsInFlight
        self.millisecondsSinceData = millisecondsSinceData
        self.millisecondsSinceAck = millisecondsSinceAck
        self.segmentsSent = segmentsSent
    }

    /// TCP_CLOSE (include/net/tcp_states.h): reset, or given up.
    var isClosed: Bool { state == 7 }
    /// TCP_LISTEN.
    var isListening: Bool { state == 10 }

    /// What the kernel's keepalive timer counts: the lesser of the time since the last data and since
    /// the last ACK received (include/net/tcp.h, keepalive_time_elapsed).
    var idleMilliseconds: Int { min(millisecondsSinceData, millisecondsSinceAck) }
    var idleSeconds: Double { Double(idleMilliseconds) / 1000 }
}

import Glibc

/// One end of a pipe to or from a child. Its owner closes it.
final class PipeEnd {
    private(set) var descriptor: Int32
    private var buffer: [UInt8] = []

    private init(_ descriptor: Int32) {
        self.descriptor = descriptor
    }

    /// Both ends are close-on-exec. Between the two calls, a child that starts at the same time could inherit an end.
    /// So ``Child`` starts one child at a time.
    static func pair() -> (reading: PipeEnd, writing: PipeEnd) {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0)
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (PipeEnd(ends[0]), PipeEnd(ends[1]))
    }

    deinit {
        close()
    }

    func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }

    func write(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            let count = Glibc.write(descriptor, bytes.baseAddress, bytes.count)
            precondition(count == bytes.count || errno == EPIPE)
        }
    }

    /// The next line without its end, or nil at the end of the stream or at the deadline.
    func line(until deadline: Deadline) -> String? {
        while true {
            if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
                defer { buffer.removeFirst(end + 1) }
                return String(decoding: buffer[..<end], as: UTF8.self)
            }
            guard deadline.wait(for: [self]), let bytes = read(), !bytes.isEmpty else { return nil }
            buffer += bytes
        }
    }

    /// The data in the pipe now; empty at its end, nil if the read failed.
    func read() -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        return count < 0 ? nil : Array(bytes[..<count])
    }
}

/// The latest time to wait for.
struct Deadline {
    private let instant: ContinuousClock.Instant

    init(_ duration: Duration) {
        instant = .now + duration
    }

    var millisecondsLeft: Int32 {
        let left = ContinuousClock.now.duration(to: instant).components
        return Int32(clamping: max(0, left.seconds * 1000 + left.attoseconds / 1_000_000_000_000_000))
    }

    /// Waits until one of the pipes is readable; false at the deadline.
    func wait(for pipes: [PipeEnd]) -> Bool {
        var polled = pipes.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
        var count: Int32
        repeat { count = poll(&polled, nfds_t(polled.count), millisecondsLeft) } while count < 0 && errno == EINTR
        return count > 0
    }
}

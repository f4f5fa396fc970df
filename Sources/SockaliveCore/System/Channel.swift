import Glibc
import SystemPackage

/// One end of a stream between a process and its child. Both directions carry lines of text.
package struct Channel {
    package let descriptor: FileDescriptor

    package init(descriptor: FileDescriptor) {
        self.descriptor = descriptor
    }

    /// The corresponding C function is `socketpair`.
    package static func pair() throws(ChildProcessError) -> (Channel, Channel) {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else {
            throw ChildProcessError("cannot make a socket pair", Errno(rawValue: errno))
        }
        let channels = ends.map { Channel(descriptor: FileDescriptor(rawValue: $0)) }
        return (channels[0], channels[1])
    }

    package func send(_ text: String) throws(ChildProcessError) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let sent = bytes.withUnsafeBytes {
                Glibc.send(descriptor.rawValue, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if sent < 0 && errno == EINTR { continue }
            // A program that ended without reading its input gives the reason in its output.
            if sent < 0 && errno == EPIPE { return }
            guard sent > 0 else { throw ChildProcessError("cannot write to a helper", Errno(rawValue: errno)) }
            bytes = bytes.dropFirst(sent)
        }
    }

    /// The next line without its end, or nil after `seconds` or at the end of the stream.
    package func line(within seconds: Int? = nil) -> String? {
        let deadline = seconds.map { Deadline(seconds: $0) }
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while waitReadable(descriptor.rawValue, until: deadline), read(descriptor.rawValue, &byte, 1) == 1 {
            if byte == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
            line.append(byte)
        }
        return nil
    }

    /// Everything up to the end of the stream.
    package func readToEnd() -> String {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while case let count = read(descriptor.rawValue, &chunk, chunk.count), count > 0 {
            all += chunk[..<count]
        }
        return String(decoding: all, as: UTF8.self)
    }

    package func finishSending() {
        shutdown(descriptor.rawValue, Int32(SHUT_WR))
    }

    package func close() {
        try? descriptor.close()
    }
}

/// A moment on the monotonic clock.
package struct Deadline {
    private let end: ContinuousClock.Instant

    package init(seconds: Int) {
        self.init(after: .seconds(seconds))
    }

    init(after time: Duration) {
        end = .now + time
    }

    /// Milliseconds until then, never below zero, as `poll` takes them.
    var milliseconds: Int32 {
        Int32(max(0, (end - .now).milliseconds).rounded(.up))
    }
}

/// Waits until `descriptor` is readable or has ended; false if `deadline` passes first (nil: never).
package func waitReadable(_ descriptor: Int32, until deadline: Deadline?) -> Bool {
    !readable([descriptor], until: deadline).isEmpty
}

/// Waits for any of `descriptors`. Returns those that are readable or have ended; none if `deadline` passes first.
///
/// The corresponding C function is `poll`.
package func readable(_ descriptors: [Int32], until deadline: Deadline?) -> [Int32] {
    var polls = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    while true {
        // A wait with an end is no hang: a worker says so from time to time.
        if deadline != nil { WorkerProgress.enter(next: .waiting) }
        let count = poll(&polls, nfds_t(polls.count), deadline.map { min($0.milliseconds, 200) } ?? -1)
        if count < 0 && errno == EINTR { continue }
        if count == 0, let deadline, deadline.milliseconds > 0 { continue }
        return polls.filter { $0.revents != 0 }.map(\.fd)
    }
}

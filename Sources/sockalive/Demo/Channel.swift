import Glibc
import SystemPackage

/// One end of a stream between two processes of the demo: lines of text, in both directions.
struct Channel {
    let descriptor: FileDescriptor

    /// The corresponding C function is `socketpair`.
    static func pair() throws -> (Channel, Channel) {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else {
            throw DemoFailure("cannot make a socket pair: \(Errno(rawValue: errno))")
        }
        let channels = ends.map { Channel(descriptor: FileDescriptor(rawValue: $0)) }
        return (channels[0], channels[1])
    }

    func send(_ text: String) throws {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let sent = bytes.withUnsafeBytes {
                Glibc.send(descriptor.rawValue, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if sent < 0 && errno == EINTR { continue }
            // A program that ended without reading its input tells why in its output.
            if sent < 0 && errno == EPIPE { return }
            guard sent > 0 else { throw DemoFailure("cannot write to a helper: \(Errno(rawValue: errno))") }
            bytes = bytes.dropFirst(sent)
        }
    }

    /// The next line without its end, or nil after `seconds` or at the end of the stream.
    func line(within seconds: Int? = nil) -> String? {
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
    func readToEnd() -> String {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while case let count = read(descriptor.rawValue, &chunk, chunk.count), count > 0 {
            all += chunk[..<count]
        }
        return String(decoding: all, as: UTF8.self)
    }

    func finishSending() {
        shutdown(descriptor.rawValue, Int32(SHUT_WR))
    }

    func close() {
        try? descriptor.close()
    }
}

import Glibc
import SystemPackage

/// One end of the way between the two processes: messages, whole or not at all (SOCK_SEQPACKET, unix(7)).
struct HelperChannel {
    let descriptor: Int32

    static func pair() throws(Errno) -> (HelperChannel, HelperChannel) {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw Errno(rawValue: errno) }
        return (HelperChannel(descriptor: ends[0]), HelperChannel(descriptor: ends[1]))
    }

    func close() {
        _ = Glibc.close(descriptor)
    }

    /// False where the other end is gone.
    func send(_ message: HelperMessage) -> Bool {
        let bytes = message.bytes
        while true {
            if Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count { return true }
            if errno != EINTR { return false }
        }
    }

    /// nil where the other end is gone, or what it sent is no request.
    func receiveRequest() -> HelperRequest? { receive().flatMap(HelperRequest.init) }

    /// - Parameter time: nil: it waits without end.
    /// - Returns: nil where there was none in time.
    func receiveReply(within time: Duration?) -> HelperReply? {
        // A signal does not end the wait: it is heard between two sockets.
        guard waitReadable(descriptor, until: time.map { Deadline(after: $0) }) else { return nil }
        return receive().flatMap(HelperReply.init)
    }

    private func receive() -> HelperMessage? {
        withUnsafeTemporaryAllocation(byteCount: HelperMessage.maxBytes, alignment: 8) { buffer in
            while true {
                let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
                if count > 0 { return HelperMessage(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
                if count == 0 || errno != EINTR { return nil }
            }
        }
    }
}

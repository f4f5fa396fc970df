import Glibc

/// A `/dev/log` that only programs under ``launcher`` see, and the datagrams sent to it.
final class PrivateLog {
    private let folder: TemporaryFolder
    private var descriptor: Int32

    init() throws {
        folder = try TemporaryFolder()
        descriptor = Self.listener(at: folder.path("log"))
    }

    private static func listener(at path: String) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        let status = withAddress(path) { Glibc.bind(descriptor, $0, $1) }
        precondition(status == 0)
        return descriptor
    }

    /// Makes a new socket at the same path, as a restarted logger does.
    func restart() {
        close(descriptor)
        unlink(folder.path("log"))
        descriptor = Self.listener(at: folder.path("log"))
    }

    deinit {
        close(descriptor)
    }

    /// A path for a lock and the files beside it, for this test only.
    func path(_ name: String) -> String { folder.path(name) }

    /// Removes the listener.
    func stop() {
        unlink(folder.path("log"))
        close(descriptor)
        descriptor = -1
    }

    /// Runs a command in a mount namespace with this `/dev/log`.
    var launcher: [String] {
        let script = "mount -t tmpfs none /dev && ln -s \"$0\" /dev/log && exec \"$@\""
        return ["unshare", "--mount", "sh", "-c", script, folder.path("log")]
    }

    /// Runs a command in a mount namespace without a `/dev/log`.
    static let missing = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"]

    /// The lines since the last call.
    func lines() -> [String] {
        var lines: [String] = []
        while true {
            var bytes = [UInt8](repeating: 0, count: 8192)
            let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            guard count >= 0 else { return lines }
            lines.append(String(decoding: bytes[..<count], as: UTF8.self))
        }
    }

    /// Fills the socket's queue, so no more datagrams are accepted.
    func fill() {
        let sender = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(sender) }
        _ = Self.withAddress(folder.path("log")) { connect(sender, $0, $1) }
        while send(sender, "x", 1, Int32(MSG_DONTWAIT)) == 1 {}
    }

    private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}

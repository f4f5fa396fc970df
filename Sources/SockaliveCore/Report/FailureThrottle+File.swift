import Glibc
import SystemPackage

extension FailureThrottle {
    private static let maxFileSize = 1 << 22

    /// What the last run left; nothing where there is none, or where somebody else wrote it.
    public init(file path: String) {
        self.init()
        // O_NOFOLLOW and O_NONBLOCK: neither a link nor a FIFO in a shared folder leads anywhere.
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard file >= 0 else { return }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_uid == geteuid(),
            status.st_size <= Self.maxFileSize
        else { return }
        let bytes = [UInt8](unsafeUninitializedCapacity: Int(status.st_size)) { buffer, count in
            count = max(0, read(file, buffer.baseAddress, buffer.count))
        }
        self.init(bytes)
    }

    public func save(to path: String) throws(Errno) {
        try AtomicFile.write(text, to: path, mode: 0o600)
    }
}

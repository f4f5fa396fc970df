import Glibc
import SystemPackage

extension RuleFile {
    private static let maxSize = 1 << 20
    private static let timeout: Int32 = 2000

    /// The bytes of a file or of a pipe whose writer does not keep the run waiting.
    public static func read(_ path: String) throws(Errno) -> [UInt8] {
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw Errno(rawValue: errno) }
        guard [S_IFREG, S_IFIFO].contains(status.st_mode & S_IFMT) else { throw .invalidArgument }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 14)
        while bytes.count <= maxSize {
            var polled = pollfd(fd: file, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, timeout) != 0 else { throw .timedOut }
            let count = Glibc.read(file, &chunk, chunk.count)
            if count == 0 { return bytes }
            if count > 0 { bytes += chunk[..<count] } else if errno != EINTR { throw Errno(rawValue: errno) }
        }
        throw .fileTooLarge
    }
}

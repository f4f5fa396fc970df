import Glibc
import SystemPackage

/// A file that is there whole, old or new, whatever happens meanwhile.
public enum AtomicFile {
    /// Writes beside the file, then renames (rename(2)). After an error nothing new is left in the folder.
    ///
    /// - Throws: `Errno`; `fileExists` where something that is no regular file has the name: a device
    ///   or a link is not replaced.
    public static func write(_ text: String, to path: String, mode: mode_t) throws(Errno) {
        var status = stat()
        if lstat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG { throw .fileExists }
        let (file, temporary) = try create(beside: path)
        do throws(Errno) {
            defer { close(file) }
            try fill(file, text, mode)
        } catch {
            unlink(temporary)
            throw error
        }
        guard rename(temporary, path) == 0 else {
            let error = Errno(rawValue: errno)
            unlink(temporary)
            throw error
        }
    }

    /// A hidden name: who collects `*.prom` takes no half-written file.
    private static func create(beside path: String) throws(Errno) -> (file: Int32, name: String) {
        let target = FilePath(path)
        guard let base = target.lastComponent else { throw .isDirectory }
        let template = target.removingLastComponent().appending(".\(base.string).XXXXXX").string
        var bytes = Array(template.utf8CString)
        let file = mkstemp(&bytes)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        _ = fcntl(file, F_SETFD, FD_CLOEXEC)
        return (file, String(decoding: bytes.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self))
    }

    private static func fill(_ file: Int32, _ text: String, _ mode: mode_t) throws(Errno) {
        do {
            _ = try FileDescriptor(rawValue: file).writeAll(text.utf8)
        } catch {
            throw error as? Errno ?? .ioError
        }
        guard fchmod(file, mode) == 0, fsync(file) == 0 else { throw Errno(rawValue: errno) }
    }
}

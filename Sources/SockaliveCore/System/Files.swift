import Glibc
import SystemPackage

/// A file that readers see complete: either the old content or the new.
package enum AtomicFile {
    /// Writes a temporary file in the same folder, then renames it (rename(2)). After an error the temporary file is
    /// deleted.
    ///
    /// - Throws: `Errno`; `fileExists` if `path` is not a regular file. A device or a link is never replaced.
    package static func write(_ text: String, to path: String, mode: mode_t) throws(Errno) {
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

    /// The name is hidden, so a program that collects `*.prom` never reads a half-written file.
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

/// What changes when a file is written, or when another one takes its place: by rename(2), or because a symbolic link on
/// the way leads elsewhere, as in a mounted ConfigMap of Kubernetes.
package struct FileVersion: Equatable, Sendable {
    private let device, inode: UInt64
    private let size: Int64
    private let modified, changed: [Int]
    /// Why it cannot be looked at; 0 if it can.
    private let error: Int32

    /// nil if it is no regular file.
    package init?(_ path: String) {
        var status = stat()
        let result = stat(path, &status)
        error = result == 0 ? 0 : errno
        if result == 0 && status.st_mode & S_IFMT != S_IFREG { return nil }
        (device, inode, size) = (UInt64(status.st_dev), UInt64(status.st_ino), Int64(status.st_size))
        modified = [status.st_mtim.tv_sec, status.st_mtim.tv_nsec]
        changed = [status.st_ctim.tv_sec, status.st_ctim.tv_nsec]
    }
}

/// A small file that one run leaves for the next one.
enum StateFile {
    /// The bytes; nil where there is no such file, or where somebody else wrote it.
    ///
    /// - Parameter limit: a longer file is nobody's.
    static func read(_ path: String, limit: Int) -> [UInt8]? {
        // O_NOFOLLOW and O_NONBLOCK: neither a link nor a FIFO in a shared folder leads anywhere.
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_uid == geteuid(),
            status.st_size <= limit
        else { return nil }
        return [UInt8](unsafeUninitializedCapacity: Int(status.st_size)) { buffer, count in
            count = max(0, Glibc.read(file, buffer.baseAddress, buffer.count))
        }
    }
}

/// How many files this process may open (RLIMIT_NOFILE, getrlimit(2)). Each matching process needs one descriptor,
/// and the usual limit of 1,024 is for programs that use select(2).
package enum OpenFiles {
    /// Descriptors that a run needs for everything else, with a margin.
    private static let reserve = 32

    /// Raises the limit as far as this process may. If the kernel refuses, the limit stays.
    ///
    /// - Throws: `tooManyOpenFiles` if that is not enough even for one target.
    package static func raiseLimit() throws(Errno) {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        if getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            setrlimit(resource, &limit)
        }
        // Behind the standard streams.
        if areUsedUp(at: STDERR_FILENO + 1) { throw .tooManyOpenFiles }
    }

    /// Whether a number this high leaves too few descriptors: the kernel gives the lowest free number first.
    static func areUsedUp(at descriptor: Int32) -> Bool {
        Int(descriptor) >= sysconf(Int32(_SC_OPEN_MAX)) - reserve
    }
}

/// One run at a time. The kernel releases the lock when its holder dies, however it dies (flock(2)).
package final class RunLock {
    private let descriptor: Int32

    /// Takes the lock without waiting. The file is created if it is missing, and never written to.
    ///
    /// - Throws: `Errno.wouldBlock` if another run holds the lock; another `Errno` if the file cannot be opened.
    package init(path: String) throws(Errno) {
        // O_NOFOLLOW: a link planted in a shared folder cannot lead root to another file.
        // O_NONBLOCK: a FIFO cannot block the run.
        let file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0o600)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
            let error = Errno(rawValue: errno)
            close(file)
            throw error
        }
        descriptor = file
    }

    deinit {
        close(descriptor)
    }
}

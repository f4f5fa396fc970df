import Glibc
import SystemPackage

/// One run at a time: a lock that the kernel lets go of when its holder dies, however it dies (flock(2)).
public struct RunLock: ~Copyable {
    private let descriptor: Int32

    /// Takes the lock without waiting. The file is created where it is missing, and never written to.
    ///
    /// - Throws: `Errno.wouldBlock` where another run holds it; another `Errno` where the file cannot be opened.
    public init(path: String) throws(Errno) {
        // O_NOFOLLOW: no link planted in a shared folder leads root to another file.
        // O_NONBLOCK: a FIFO does not hang the run.
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

import CSockalive
import Glibc
import SystemPackage

/// A process held so that its number cannot pass for another's: by a pidfd, opened before anything is read
/// about it in `/proc`; on kernels before 5.3 by its start time.
///
/// While the process lives its PID is not given away. So what was read between opening the handle and a
/// later ``isAlive`` is all about this one process.
final class ProcessHandle: Sendable {
    let pid: Int32
    /// nil where the kernel has no pidfd_open, or no descriptor was to be had.
    let descriptor: Int32?
    private let startTime: UInt64?

    /// nil if the process is gone.
    init?(pid: Int32, procfs: ProcFS) {
        self.pid = pid
        let pidfd = procfs.isOwn ? sockalive_pidfd_open(pid) : -ENOSYS
        descriptor = pidfd >= 0 ? pidfd : nil
        startTime = pidfd >= 0 ? nil : Self.startTime(of: pid, procfs)
        if pidfd == -ESRCH || (pidfd < 0 && startTime == nil) { return nil }
    }

    deinit {
        if let descriptor { close(descriptor) }
    }

    /// Whether the process is there still, and is the same.
    func isAlive(_ procfs: ProcFS) -> Bool {
        guard let descriptor else { return Self.startTime(of: pid, procfs) == startTime }
        // Readable as soon as the whole process has exited (pidfd_open(2)).
        var event = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&event, 1, 0) == 0
    }

    private static func startTime(of pid: Int32, _ procfs: ProcFS) -> UInt64? {
        (try? procfs.read("\(pid)/stat") { ProcessStat($0) })??.startTime
    }
}

import CSockalive
import Glibc
import SystemPackage

/// How a traced thread has stopped, without taking that from the kernel: a signal that is about to be delivered stays
/// there. If this process is killed in such a stop, the kernel delivers the signal.
struct StopReader {
    let process: Int32
    let procfs: ProcFS

    /// Linux 4.7. It is asked once, before any thread is seized.
    private static let waitsForThreads = sockalive_waits_for_threads()

    init(process: Int32, procfs: ProcFS) {
        _ = Self.waitsForThreads
        self.process = process
        self.procfs = procfs
    }

    /// The status as in si_status of waitid(2); 0 if the thread has not stopped; -ECHILD if it has ended or has another
    /// number; another negative errno if nobody can tell.
    func status(of tid: Int32) -> Int32 {
        if Self.waitsForThreads { return sockalive_stop_status(tid) }
        // Most requests are refused for a thread that runs (ESRCH). This one changes nothing.
        var signal = siginfo_t()
        let isStopped = withUnsafeMutablePointer(to: &signal) {
            sockalive_ptrace(PTRACE_GETSIGINFO, tid, 0, UInt(bitPattern: $0)) != -ESRCH
        }
        return isStopped ? statusOfStopped(tid) : statusOfOther(tid)
    }

    /// waitid(2) without __WALL sees the main thread of most processes. Of another thread `/proc` shows the status.
    /// Only a thread that has become privileged by execve(2) hides it. That stop delivers no signal, so the status may be
    /// taken.
    private func statusOfStopped(_ tid: Int32) -> Int32 {
        let status = sockalive_process_stop_status(tid)
        if status > 0 { return status }
        return stat(of: tid)?.exitCode ?? sockalive_take_status(tid)
    }

    /// It runs; or it is dead, and has to be reaped, or its parent is not notified.
    private func statusOfOther(_ tid: Int32) -> Int32 {
        guard let stat = stat(of: tid) else { return procfs.threadExists(tid, of: process) ? 0 : -ECHILD }
        guard stat.state == "Z" || stat.state == "X" else { return 0 }
        _ = sockalive_take_status(tid)
        return -ECHILD
    }

    private func stat(of tid: Int32) -> ProcessStat? {
        (try? procfs.read("\(process)/task/\(tid)/stat") { ProcessStat($0) }) ?? nil
    }
}

extension ProcFS {
    fileprivate func threadExists(_ tid: Int32, of process: Int32) -> Bool {
        faccessat(root.rawValue, "\(process)/task/\(tid)", F_OK, 0) == 0 || errno != ENOENT
    }
}

import Glibc
import SystemPackage

/// A process that hung. Its number may be another one's by the next run, which then is looked at last once: that costs
/// less than to ask for its start, because `/proc/PID/stat` hangs as well.
package struct HungProcess: Hashable, Sendable {
    /// A worker that could not be killed there.
    struct Worker: Hashable, Sendable {
        let pid: Int32
        /// Clock ticks since boot.
        let startTime: UInt64
        /// The call that has not returned.
        let step: WorkerStep

        init(pid: Int32, startTime: UInt64, step: WorkerStep) {
            self.pid = pid
            self.startTime = startTime
            self.step = step
        }

        /// nil if it has ended.
        init?(pid: Int32, step: WorkerStep) {
            guard let startTime = Self.startTime(of: pid) else { return nil }
            self.init(pid: pid, startTime: startTime, step: step)
        }

        var isAlive: Bool { Self.startTime(of: pid) == startTime }

        /// A process of this program; its `stat` waits for nobody, but the number may be another process's by now, whose
        /// `stat` may wait for the end of an execve(2). `status` never waits. A zombie has ended, unless another thread
        /// of it has not (state D): it stays in the process's list until then.
        private static func startTime(of pid: Int32) -> UInt64? {
            guard let procfs = try? ProcFS(),
                (try? procfs.status("\(pid)"))?.users.areAll(geteuid()) == true,
                let stat = try? procfs.read("\(pid)/stat", { ProcessStat($0) }),
                !"ZX".contains(stat.state) || procfs.threadCount(of: pid) > 1
            else { return nil }
            return stat.startTime
        }
    }

    /// 0: no process in particular; the worker that was left behind hangs in a socket table.
    let pid: Int32
    let leftBehind: Worker?
    /// Seconds since boot when the link to its executable hung, while names were looked for. It need not be a process
    /// that matches. For an hour that link is not read, if the process is there.
    let linkHung: Int?

    var isStranger: Bool { linkHung != nil }

    /// Whether a worker hangs there even now.
    package var holdsWorker: Bool { leftBehind?.isAlive ?? false }

    /// Whether there is still something to remember. A number without a process costs the next runs nothing.
    var isThere: Bool { holdsWorker || pid > 0 && (kill(pid, 0) == 0 || errno == EPERM) }

    private static let retryAfter = 3600

    static func stranger(_ pid: Int32) -> HungProcess {
        HungProcess(pid: pid, leftBehind: nil, linkHung: bootSeconds)
    }

    /// Whether a stranger is still to be left alone.
    var isRecent: Bool {
        guard let linkHung else { return false }
        return (0..<Self.retryAfter).contains(bootSeconds - linkHung) && isThere
    }
}

/// As a file beside the lock: a line a process: its number; or that and when its link hung;
/// or that, and a worker that was left behind: its number, its start and its step.
extension HungProcess {
    private static let capacity = 1024

    package static func read(_ path: String) -> Set<HungProcess> {
        let lines = (StateFile.read(path, limit: 1 << 16) ?? []).split(separator: UInt8(ascii: "\n"))
        return Set(lines.prefix(capacity).compactMap { HungProcess(line: $0) })
    }

    package static func write(_ processes: Set<HungProcess>, to path: String) throws(Errno) {
        // A worker that hangs there is not to be joined by another one.
        let kept = processes.filter { $0.leftBehind != nil } + processes.filter { $0.leftBehind == nil }
        let lines = kept.prefix(capacity).map(\.line).sorted()
        try AtomicFile.write(lines.map { $0 + "\n" }.joined(), to: path, mode: 0o600)
    }

    private var line: String {
        "\(pid)" + (linkHung.map { " \($0)" } ?? "")
            + (leftBehind.map { " \($0.pid) \($0.startTime) \($0.step.rawValue)" } ?? "")
    }

    private init?(line: ArraySlice<UInt8>) {
        let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard [1, 2, 4].contains(fields.count), let pid: Int32 = fields[0].decimal(), pid > 0 || fields.count == 4
        else { return nil }
        if fields.count == 2 {
            guard let linkHung: Int = fields[1].decimal() else { return nil }
            self.init(pid: pid, leftBehind: nil, linkHung: linkHung)
            return
        }
        var worker: Worker?
        if fields.count == 4 {
            guard let pid: Int32 = fields[1].decimal(), let startTime: UInt64 = fields[2].decimal(),
                let step = fields[3].decimal(UInt8.self).flatMap(WorkerStep.init)
            else { return nil }
            worker = Worker(pid: pid, startTime: startTime, step: step)
        }
        self.init(pid: pid, leftBehind: worker, linkHung: nil)
    }
}

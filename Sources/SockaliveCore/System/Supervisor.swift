import CSockalive
import Glibc
import SystemPackage

/// Runs work in a process of its own, which can be killed when a call of it does not return.
///
/// The parent touches nothing of a target. It waits, hears the signals and keeps the time. The worker has no
/// descriptor of the parent's but its end of a socket pair: neither the lock, nor the pipes that others wait at the end
/// of. So a worker that cannot be killed (state D) can be left behind.
///
/// What happens if one of the two dies: the kernel kills the worker when its parent ends (PR_SET_PDEATHSIG), and the
/// parent sees the end of the socket pair when the worker does. What the worker has said is in shared memory.
package struct Supervisor {
    /// Where a thread of a worker was that was killed.
    package struct Hang: Equatable, Sendable {
        package let position: WorkerPosition
        /// The number of the worker, if this thread could not even be killed, and is left behind.
        package let leftBehind: Int32?
    }

    /// How a worker ended.
    package enum Exit: Equatable, Sendable {
        /// It has done its work.
        case done
        /// It made no progress, and was killed. One as a rule: each thread that hung.
        case hung([Hang])
        /// Something else has ended it.
        /// The position is the main thread's, which may have waited for others.
        case lost(WorkerPosition, ChildProcess.End)
        /// The run is over, and the worker did not come to its end.
        case stopped(StopReason, [Hang])
    }

    /// Without progress for so long, a worker that sleeps is killed.
    private let stallLimit: Duration
    private let control: RunControl
    /// Called while it waits, a few times a second.
    private let whileWaiting: () -> Void

    /// Longer than a hold waits for a stop.
    private static let maxStall = Duration.milliseconds(1500)
    /// How often the parent looks, unless the worker ends before.
    private static let pollInterval: Int32 = 20
    /// A worker stops between two sockets. It has so much time for that.
    private static let stopTime = Duration.milliseconds(400)
    /// A thread that does not recover by itself is detached within that time, because each of its waits has an end.
    static let unsafeHoldTime = Duration.seconds(5)
    private static let killTime = Duration.milliseconds(250)

    /// - Parameter limit: the time of the whole run. A stall may take half of it at most.
    package init(control: RunControl, limit: Seconds, whileWaiting: @escaping () -> Void = {}) {
        self.control = control
        self.whileWaiting = whileWaiting
        stallLimit = min(Self.maxStall, .milliseconds(500 * limit.count))
    }

    /// For work that says nothing of its progress, such as to write a file.
    ///
    /// - Parameter time: it may take so long.
    package init(control: RunControl, time: Duration) {
        self.control = control
        whileWaiting = {}
        stallLimit = max(Self.maxStall, time)
    }

    /// Forks a worker for `work`, and hands what it writes to `receive`.
    ///
    /// - Parameter receive: takes the bytes that it has understood.
    /// - Throws: `Errno` where there is no process or no memory to be had.
    package func run(
        _ work: (WorkerOutput) -> Void, receive: (inout [UInt8]) throws -> Void
    ) throws -> Exit {
        guard let page = WorkerPage() else { throw Errno.noMemory }
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw Errno(rawValue: errno) }
        defer { close(ends[0]) }
        // Whoever started this program may have its children's ends ignored. Their numbers are given away at once then.
        signal(SIGCHLD, SIG_DFL)
        Self.reapEnding()
        Self.adoptOrphans
        let parent = getpid()
        let child = sockalive_fork()
        if child == 0 { Self.become(worker: ends[1], of: parent, page, work) }
        close(ends[1])
        guard child > 0 else { throw Errno(rawValue: -child) }
        return try supervise(ChildProcess(pid: child), ends[0], page, receive)
    }

    private static func become(
        worker channel: Int32, of parent: pid_t, _ page: WorkerPage, _ work: (WorkerOutput) -> Void
    ) -> Never {
        // The parent's alarm is not inherited (fork(2)); its terminal's stop would leave a target standing.
        _ = sockalive_die_with_parent()
        guard getppid() == parent else { _exit(1) }
        _ = sockalive_hold_job_control()
        sockalive_close_all_but(channel)
        for descriptor in 0...2 { close(Int32(descriptor)) }
        // The lowest free numbers: 0, 1 and 2.
        for _ in 0...2 { _ = open("/dev/null", O_RDWR) }
        page.keepFromChildren()
        WorkerProgress.report(to: page)
        WorkerProgress.enter(.waiting)
        work(WorkerOutput(page: page, channel: channel))
        page.isDone = true
        // The parent need not wait for what the kernel has to tidy up.
        _ = send(channel, [0], 1, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        _exit(0)
    }

    private func supervise(
        _ worker: ChildProcess, _ channel: Int32, _ page: WorkerPage, _ receive: (inout [UInt8]) throws -> Void
    ) throws -> Exit {
        var bytes: [UInt8] = []
        var stall = Stall(page, stallLimit)
        var stopping: (reason: StopReason, since: ContinuousClock.Instant)?
        /// - Parameter isAll: it says no more. Else there is more to do than to read what it says.
        func take(isAll: Bool = true) throws {
            for _ in 0..<WorkerPage.partCount {
                page.read(into: &bytes)
                try receive(&bytes)
                guard page.unread > 0, isAll || control.stopReason == nil else { return }
                whileWaiting()
            }
        }
        /// What it has said until its end is heard.
        func end(_ threads: [Int]) throws -> [Hang] {
            let hangs = kill(worker, threads, page)
            try take()
            return hangs
        }
        do {
            while true {
                let hasEnded = wait(for: channel)
                let isDone = page.isDone
                try take(isAll: isDone || hasEnded)
                if isDone {
                    letEnd(worker)
                    return .done
                }
                if hasEnded { break }
                if stopping == nil, let reason = control.stopReason {
                    stopping = (reason, .now)
                    // It has the handlers of its parent, and the same clock.
                    if case .signal = reason { Glibc.kill(worker.pid, SIGTERM) }
                }
                whileWaiting()
                if let stopping {
                    let isUnsafe = page.isHoldUnsafe
                    if isUnsafe { HardLimit.postpone() }
                    let time = .now - stopping.since
                    guard time > (isUnsafe ? Self.unsafeHoldTime : Self.stopTime),
                        stop(worker, if: { !page.isHoldUnsafe || time > Self.unsafeHoldTime })
                    else { continue }
                    return .stopped(stopping.reason, try end(page.busyThreads))
                }
                if stall.lasts(page, isRunning: { isRunning($0, of: worker.pid, page) }),
                    stop(worker, if: { stall.isStill(page) })
                {
                    return .hung(try end(stall.hanging))
                }
            }
        } catch {
            // What it says is no message of this program.
            _ = kill(worker)
            throw error
        }
        let position = page.position(of: 0)
        guard let end = reap(worker) else { return .hung(kill(worker, page.busyThreads, page)) }
        return end == .exited(0) ? .done : .lost(position, end)
    }

    /// Whether the worker has ended, or soon will have.
    private func wait(for channel: Int32) -> Bool {
        var polled = pollfd(fd: channel, events: Int16(POLLIN), revents: 0)
        guard poll(&polled, 1, Self.pollInterval) > 0 else { return false }
        var byte: UInt8 = 0
        return recv(channel, &byte, 1, Int32(MSG_DONTWAIT)) == 0
    }

    /// Whether a thread of the worker has, or waits for, a processor. While the main thread waits for others, it runs as
    /// long as any of them does.
    private func isRunning(_ thread: Int, of worker: pid_t, _ page: WorkerPage) -> Bool {
        guard thread == 0 else { return isRunning(page.threadID(of: thread) ?? worker, of: worker) }
        let folder = page.position(of: 0).step.isOfThreads ? open("/proc/\(worker)/task", O_RDONLY | O_CLOEXEC) : -1
        guard folder >= 0, var threads = try? FolderEntries(folder) else { return isRunning(worker, of: worker) }
        while let (name, _) = threads.nextName() {
            if let id: Int32 = name.decimal(), isRunning(id, of: worker) { return true }
        }
        return false
    }

    /// Of a process of this program, which it may always ask for.
    private func isRunning(_ thread: Int32, of worker: pid_t) -> Bool {
        state(of: thread, of: worker) == "R"
    }

    /// proc_pid_stat(5); nil if it has ended.
    private func state(of thread: Int32, of worker: pid_t) -> Character? {
        let file = open("/proc/\(worker)/task/\(thread)/stat", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        let text = [UInt8](unsafeUninitializedCapacity: 512) { bytes, count in
            count = max(0, read(file, bytes.baseAddress, bytes.count))
        }
        guard let name = text.lastIndex(of: UInt8(ascii: ")")), name + 2 < text.count else { return nil }
        return Character(Unicode.Scalar(text[name + 2]))
    }

    /// Stops it before it is killed: between the judgement and the end it begins nothing new, such as to hold another
    /// target. From the signal on it runs no code of its own but what a processor is at just now.
    ///
    /// - Parameter isStill: whether the judgement is still right. If not, the worker goes on.
    private func stop(_ worker: ChildProcess, if isStill: () -> Bool) -> Bool {
        Glibc.kill(worker.pid, SIGSTOP)
        // In state D it does not stop, and does not go on either.
        for _ in 0..<Self.stopLooks where !worker.isStopped { usleep(200) }
        if isStill() { return true }
        Glibc.kill(worker.pid, SIGCONT)
        return false
    }

    private static let stopLooks = 50

    /// - Returns: its number, where it does not die.
    private func kill(_ worker: ChildProcess) -> Int32? {
        worker.kill()
        let isLeft = reap(worker) == nil
        // What the worker leaves may hang as well, such as a helper.
        Self.exitTime = isLeft ? .zero : min(Self.exitTime, Self.killTime)
        return isLeft ? worker.pid : nil
    }

    /// - Returns: where these threads of it were. If it does not die, some of them may have.
    private func kill(_ worker: ChildProcess, _ threads: [Int], _ page: WorkerPage) -> [Hang] {
        let positions = threads.map(page.position)
        guard let left = kill(worker) else { return positions.map { Hang(position: $0, leftBehind: nil) } }
        let remain = threads.map { number in
            // Without a number nobody knows.
            number != 0 && page.threadID(of: number) == nil
                || state(of: page.threadID(of: number) ?? left, of: left).map { !"ZX".contains($0) } ?? false
        }
        return zip(positions, remain).map { position, remains in
            Hang(position: position, leftBehind: remains || !remain.contains(true) ? left : nil)
        }
    }

    /// Its work is done. On a busy machine it may take its time to end; nobody waits for that.
    private func letEnd(_ worker: ChildProcess) {
        Self.ending.append(worker)
        Self.reapEnding()
    }

    /// Workers that were done, and had not ended yet.
    nonisolated(unsafe) private static var ending: [ChildProcess] = []

    private static func reapEnding() {
        ending.removeAll { $0.poll() != nil }
    }

    /// Whoever waits for no child leaves a zombie, which keeps its number, to the first process of the PID namespace. In a
    /// container that may be any program, and wait for no child, either: there each run would cost a number for good. So
    /// this process takes what its workers leave, too, such as helpers with the rights of another user.
    private static let adoptOrphans: Void = {
        var info = siginfo_t()
        let hasChild = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0
        if !hasChild { exitTime = .seconds(2) }
        _ = sockalive_adopt_orphans()
        atexit { Supervisor.reapAtExit() }
    }()

    /// How long this process waits for its children before it ends. Whoever had some before, by exec(2) or for trials of
    /// its own, does not wait for those.
    nonisolated(unsafe) private static var exitTime = killTime

    /// To be called once in a while by a process that goes on, and has no other children to wait for.
    package static func reapAll() {
        while waitpid(-1, nil, WNOHANG) > 0 {}
        ending = []
    }

    /// What is left of a run that came to its end has nothing to do but to end.
    private static func reapAtExit() {
        let deadline = ContinuousClock.now + exitTime
        while true {
            let child = waitpid(-1, nil, WNOHANG)
            if child > 0 { continue }
            guard child == 0, ContinuousClock.now < deadline else { return }
            usleep(50)
        }
    }

    private func reap(_ worker: ChildProcess) -> ChildProcess.End? {
        let deadline = ContinuousClock.now + Self.killTime
        repeat {
            if let end = worker.poll() { return end }
            usleep(50)
        } while ContinuousClock.now < deadline
        return nil
    }
}

/// What a worker says to its parent.
package struct WorkerOutput {
    /// The worker's threads write one after the other, and none counts its references.
    private let page: Unmanaged<WorkerPage>
    private let channel: Int32

    /// - Parameter page: must outlive this value.
    init(page: WorkerPage, channel: Int32) {
        self.page = .passUnretained(page)
        self.channel = channel
    }

    /// - Parameter mayWait: false while a target is held: if the parent is stopped and has not read for long, the bytes
    ///   are lost.
    package func write(_ bytes: [UInt8], mayWait: Bool = true) {
        bytes.withUnsafeBytes { write($0, mayWait: mayWait) }
    }

    func write(_ bytes: UnsafeRawBufferPointer, mayWait: Bool = true) {
        page._withUnsafeGuaranteedRef { page in
            guard mayWait || page.hasRoom(bytes.count) else { return }
            let unread = page.unread
            page.write(bytes) {
                wakeParent()
                usleep(100)
            }
            // It reads meanwhile, and empties the ring before the worker would have to wait.
            if unread < Self.wakeSize && unread + bytes.count >= Self.wakeSize { wakeParent() }
        }
    }

    private static let wakeSize = 1 << 16

    private func wakeParent() {
        _ = send(channel, [0], 1, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
}

/// A limit for what no worker does: the configuration file, the metrics, the lock's file system.
package enum HardLimit {
    /// Ends the process one second after the limit, whatever it waits for, if the kernel can end it.
    ///
    /// - Parameter cause: what it may be waiting for, and the remedy.
    package static func arm(
        _ limit: Seconds,
        cause: String = "a file does not answer: look at the files that the options name, and where they lie"
    ) {
        let text =
            "sockalive: the run's time limit of \(limit) is over, and \(cause)\n"
        // It stays for as long as the process lives: the handler of the signal writes it.
        sockalive_exit_after(UInt32(clamping: limit.count + 1), strdup(text), text.utf8.count)
    }

    /// A target would be harmed if the process ended now: not before some seconds from now.
    static func postpone() {
        sockalive_postpone_exit(6)
    }

    /// The report may take as long as its reader likes.
    package static func disarm() {
        sockalive_exit_after(0, nil, 0)
    }
}

import SystemPackage

/// A socket, as two workers of one run find it: by different sources, which do not all tell the cookie.
struct SocketKey: Hashable {
    /// Inodes are reused, and anybody can make any two ends in a namespace of their own.
    let networkNamespace: UInt64?
    let inode: UInt64
    let local, remote: Endpoint

    init(_ socket: DiscoveredSocket) {
        networkNamespace = socket.networkNamespace
        inode = socket.inode
        local = socket.row.local
        remote = socket.row.remote
    }
}

/// What the workers of a run before have left for the next one. Pure, except for ``late(_:)``.
struct RunRecovery {
    /// Processes that are not looked at again: their names or links hung.
    private(set) var excluded: [Int32: SocketFailure] = [:]
    /// Of those the ones of which nobody knows whether they have the executable that is wanted.
    private(set) var unknownExecutables: Set<Int32> = []
    /// Processes that are not reached into again. Their sockets are still found.
    private(set) var unreachable: [Int32: SocketFailure] = [:]
    /// Sockets that are not touched again, by inode.
    private(set) var untouchable: [UInt64: SocketFailure] = [:]
    /// After a call about a socket hung: the one source that waits for no lock of a socket
    /// (net/ipv4/tcp_ipv4.c, get_tcp4_sock; sock_diag waits in tcp_get_info).
    private(set) var source: SocketSource?
    /// How many threads the next worker may have.
    private(set) var sharing = Sharing.standard
    private var results: [SocketKey: SocketResult] = [:]
    private(set) var armed: [SocketKey: KeepaliveSettings] = [:]
    /// Processes of which nobody knows whether they match by the name of their executable: its link hung.
    private(set) var hungExecutables: Set<Int32> = []
    /// Processes of which something hung that is only shown.
    private(set) var hungDetails: Set<Int32> = []
    private var hangsByProcess: [Int32: Int] = [:]
    /// Workers that could not be killed, and still hang, one at several processes perhaps.
    private var leftBehind: Set<Int32> = []
    private let before: Set<HungProcess>

    /// A process with so many sockets that hang is left alone.
    private static let maxHangsPerProcess = 2
    /// So many workers may hang for ever, in all: each costs memory and a process number.
    private static let maxLeftBehind = 8

    /// - Parameter before: processes that hung in the last run. A worker that could not be killed then may still hang
    ///   at one: no other is to join it.
    init(before: Set<HungProcess> = []) {
        self.before = before
        for process in before {
            if process.isStranger { hungExecutables.insert(process.pid) }
            guard let worker = process.leftBehind, worker.isAlive else { continue }
            let position = WorkerPosition(step: worker.step, pid: process.pid)
            _ = add(position, .hung(position, leftBehind: worker.pid), leftBehind: worker.pid)
        }
    }

    // MARK: what came of sockets

    mutating func add(_ result: SocketResult) { results[SocketKey(result.socket)] = result }

    mutating func add(armed settings: KeepaliveSettings, of socket: DiscoveredSocket) {
        let key = SocketKey(socket)
        armed[key] = armed[key] ?? settings
    }

    /// Nothing has come of any socket so far.
    var isEmpty: Bool { results.isEmpty }

    func known(_ socket: DiscoveredSocket) -> SocketResult? {
        isEmpty ? nil : results[SocketKey(socket)]
    }

    // MARK: what hung

    /// - Returns: false where no process and no source can be left out, so that another worker would hang, too.
    mutating func add(_ position: WorkerPosition, _ failure: SocketFailure, leftBehind worker: Int32? = nil) -> Bool {
        if let worker { leftBehind.insert(worker) }
        let step = position.step
        if step == .processNames {
            hungExecutables.formUnion(position.scanned)
            return !position.scanned.isEmpty
        }
        if step == .details {
            hungDetails.insert(position.pid)
            return true
        }
        if position.pid == 0 {
            guard step == .socketTable, source == nil else { return false }
            source = .procfs
            return true
        }
        guard step.isAboutSocket || step == .socketTable else {
            excluded[position.pid] = failure
            if step == .executable { unknownExecutables.insert(position.pid) }
            return true
        }
        source = .procfs
        hangsByProcess[position.pid, default: 0] += 1
        let isOfSocket = step.locksSocket || step == .socketTable
        if isOfSocket, position.inode != 0 { untouchable[position.inode] = failure }
        if !isOfSocket || position.inode == 0 || hangsByProcess[position.pid]! >= Self.maxHangsPerProcess {
            unreachable[position.pid] = failure
        }
        return true
    }

    /// A worker was lost while several threads were at work: the position of one thread tells who is to blame.
    mutating func workAlone() { sharing = .none }

    /// Another worker may not be lost to the processes that come last.
    var isFull: Bool { leftBehind.count >= Self.maxLeftBehind }

    /// Somebody's links hang who need not be meant: the processes whose own word says that they are come first.
    var asksCommFirst: Bool { !hungExecutables.isEmpty || !unknownExecutables.isEmpty }

    /// Why a socket without a result has none.
    func failure(of socket: DiscoveredSocket) -> SocketFailure? {
        untouchable[socket.inode] ?? socket.holders.lazy.compactMap { unreachable[$0.pid] ?? excluded[$0.pid] }.first
    }

    // MARK: the order

    /// Processes that come last: those that hung or hold up others, and all of a user who has one of them.
    struct Late {
        private(set) var pids: [Int32]
        /// So many of them hold up calls about their sockets.
        private var holdUps = 0
        private var users: Set<UInt32>
        private let procfs: ProcFS

        fileprivate init(_ hanging: [Int32], hungBefore: [Int32], _ procfs: ProcFS) {
            pids = Set(hanging + hungBefore).sorted()
            users = []
            self.procfs = procfs
            for pid in hanging { addUsers(of: pid) }
        }

        mutating func add(_ held: HeldUp) {
            let pid = held.process
            holdUps += 1
            if !pids.contains(pid) { pids.append(pid) }
            addUsers(of: pid)
        }

        /// Root's other processes are not to wait for one of them. A set-user-ID program is also the process of the user
        /// who started it.
        private mutating func addUsers(of pid: Int32) {
            WorkerProgress.enter(.user, pid)
            users.formUnion(((try? procfs.status("\(pid)"))?.users.all ?? []).filter { $0 != 0 })
        }

        var isEmpty: Bool { pids.isEmpty }
        var holdsUp: Bool { holdUps > 0 }
        /// To find out the next one takes a quarter of a second and more, before anybody has been treated.
        var areTooMany: Bool { holdUps >= Self.maxHoldUps }
        private static let maxHoldUps = 2

        func contains(_ pid: Int32) -> Bool {
            if pids.contains(pid) { return true }
            guard !users.isEmpty else { return false }
            WorkerProgress.enter(.user, pid)
            return (try? procfs.status("\(pid)")).map { !users.isDisjoint(with: $0.users.all) } ?? false
        }
    }

    func late(_ procfs: ProcFS) -> Late {
        let hanging = Set(excluded.keys).union(unreachable.keys).union(hangsByProcess.keys)
        return Late(Array(hanging), hungBefore: before.filter { !$0.isStranger && $0.pid != 0 }.map(\.pid), procfs)
    }
}

extension SocketFailure {
    /// - Parameter leftBehind: the worker that could not even be killed.
    static func hung(_ position: WorkerPosition, leftBehind: Int32?) -> SocketFailure {
        let pid = position.pid
        let left = leftBehind.map { "; process \($0) of this program hangs there, too, and cannot be killed" } ?? ""
        return SocketFailure(
            .other, .timedOut, "PID \(pid) hangs: \(position.step.words(pid)) gave no answer in time\(left)",
            remedy: "look what it waits for (cat /proc/\(pid)/stack), such as a file server that is down; "
                + "the next run tries it last")
    }

    static func lost(_ position: WorkerPosition, _ end: ChildProcess.End) -> SocketFailure {
        SocketFailure(
            .other, .canceled,
            "the process of this program that was at work on PID \(position.pid) \(end) in "
                + position.step.words(position.pid),
            remedy: "somebody has killed it, or memory was short (see dmesg); run again")
    }

    static func tooManyLeftBehind(_ pid: Int32) -> SocketFailure {
        SocketFailure(
            .other, .timedOut,
            "PID \(pid) is not looked at: too many processes of this program hang at it and others, and cannot be killed",
            remedy: "mend what they wait for (ps -eo pid,stat,wchan:32,args | grep sockalive)")
    }

    static func lateUnreached(_ pid: Int32, _ reason: StopReason) -> SocketFailure {
        SocketFailure(
            .other, .timedOut,
            "PID \(pid) was not reached: it, or another process of its user, hung or was slow, and comes last",
            remedy: "give it more with --timeout, or leave out what hangs, with --pid, --user or --exe")
    }
}

import Glibc
import SystemPackage

/// What is not asked of processes, because it hung before.
struct ProcessLimits {
    /// Whether a process may be looked at at all. It is asked only for what comes close to the selection.
    var includes: (Int32) -> Bool = { _ in true }
    /// Processes whose links hung. They need not be of the selection.
    var excluded: Set<Int32> = []
    /// Processes whose link to the executable is not read.
    var hungExecutables: Set<Int32> = []
    /// Processes of which nothing is read that is only shown.
    var hungDetails: Set<Int32> = []
    /// A process that holds up the search is left out of it (``HeldUp``). Otherwise a table answers for all.
    var leavesOutWhoHoldsUp = false
    /// Sockets whose locks hung, by inode.
    var untouchable: Set<UInt64> = []
    /// No process is asked for its executable unless its comm, which never waits, is that name already.
    var isByComm = false
}

/// Finds the processes of a selection in `/proc`.
///
/// Each is held first and read afterwards, so that a recycled PID never joins one process's
/// name to another one's sockets.
struct ProcessSearch {
    let procfs: ProcFS
    let places: ProcessPlaces
    private let alternatives: [ProcessSelection]
    private let limits: ProcessLimits
    private let finder: ProcessFinder
    /// For more selections than one.
    private let matcher: ProcessMatcher?
    /// Whether arguments are read of processes that are found.
    private let readsArguments: Bool

    /// - Parameter alternatives: each of these may mean a process.
    init(
        procfs: ProcFS, _ alternatives: [ProcessSelection], limits: ProcessLimits = ProcessLimits(),
        places: ProcessPlaces? = nil, readsArguments: Bool = false
    ) {
        self.procfs = procfs
        self.alternatives = alternatives
        self.limits = limits
        self.readsArguments = readsArguments
        let places = places ?? ProcessPlaces(procfs: procfs)
        self.places = places
        finder = ProcessFinder(
            procfs: procfs, selection: alternatives.first ?? .nobody, limits: limits, places: places)
        matcher =
            alternatives.count > 1 ? ProcessMatcher(Array(alternatives.dropFirst()), procfs, limits, places) : nil
    }

    /// The processes that are meant, and those of which nobody knows.
    ///
    /// - Throws: `tooManyOpenFiles` rather than to leave out a process that cannot be held.
    func processes() throws -> (found: [ProcessHandle], unanswered: [UnansweredProcess]) {
        var found: [ProcessHandle] = []
        var unanswered: [UnansweredProcess] = []
        for pid in try pids() {
            guard limits.includes(pid), let handle = ProcessHandle(pid: pid, procfs: procfs) else { continue }
            if handle.isUnknown || handle.descriptor.map(OpenFiles.areUsedUp) ?? false { throw Errno.tooManyOpenFiles }
            switch match(pid) {
            case .no: break
            case .yes: found.append(handle)
            case .unknown(let reason) where handle.isAlive(procfs):
                unanswered.append(UnansweredProcess(pid: pid, name: name(of: pid), reason: reason))
            case .unknown: break
            }
        }
        return (found, unanswered + nameless)
    }

    private func match(_ pid: Int32) -> ProcessMatch {
        let match = finder.match(pid)
        if case .yes = match { return match }
        guard let matcher else { return match }
        if !matcher.matching(pid).isEmpty { return .yes }
        return matcher.unknown[pid].map(ProcessMatch.unknown) ?? match
    }

    /// Containers or pods were asked for by names, and some have none that can be known here.
    private var nameless: [UnansweredProcess] {
        var seen: Set<String> = []
        return alternatives.map(\.places).flatMap(places.unknownNames).compactMap { pid, reason in
            guard case .unknownName(let option, _, _) = reason, seen.insert(option).inserted else { return nil }
            return UnansweredProcess(pid: pid, name: name(of: pid), reason: reason)
        }
    }

    private func name(of pid: Int32) -> UntrustedText? {
        try? procfs.read("\(pid)/comm") { UntrustedText($0.dropLast()) }
    }

    /// Numbers of the selection that are threads, with their processes: `/proc/TID` exists, though no listing shows it.
    func threads() -> [(tid: Int32, process: Int32)] {
        Set(alternatives.flatMap(\.pids)).sorted().compactMap { pid in
            WorkerProgress.enter(.user, pid)
            guard let process = (try? procfs.status("\(pid)"))?.threadGroup, process != pid else { return nil }
            return (pid, process)
        }
    }

    /// Those that are worth a closer look: only what turns a process down is read of all of them.
    private func pids() throws -> [Int32] {
        var names: [UntrustedText] = []
        var pids: Set<Int32> = []
        var placed: [PlaceSelection] = []
        for selection in alternatives {
            if !selection.anyProcess && !selection.isByFilter {
                names += selection.names
                pids.formUnion(selection.pids)
            } else if !selection.places.isEmpty {
                placed.append(selection.places)
            } else {
                return try procfs.numbers(in: ".")
            }
        }
        if !names.isEmpty {
            WorkerProgress.enter(.processNames)
            let scan = CommScan(
                root: procfs.root.rawValue, names: names, hung: limits.hungExecutables, isByComm: limits.isByComm)
            let named = try scan.matching()
            if pids.isEmpty && placed.isEmpty { return named }
            pids.formUnion(named)
        }
        if !placed.isEmpty { pids.formUnion(try places.candidates(placed)) }
        return pids.sorted()
    }

    /// Everything about the process; nil if it is gone.
    func identity(of process: MatchedProcess) -> ProcessIdentity? {
        let pid = process.pid
        WorkerProgress.enter(.identity, pid)
        guard let stat = try? procfs.read("\(pid)/stat", { ProcessStat($0) }),
            let status = try? procfs.status("\(pid)")
        else { return nil }
        let asksDetails = !limits.hungDetails.contains(pid)
        return ProcessIdentity(
            pid: pid, name: stat.name, executable: executable(pid), uid: status.uid,
            startTime: stat.startTime, networkNamespace: process.namespace.inode,
            status: status, place: places.place(of: pid, asksNames: asksDetails),
            arguments: readsArguments && asksDetails ? arguments(pid) : nil)
    }

    private func executable(_ pid: Int32) -> UntrustedText? {
        WorkerProgress.enter(.executable, pid)
        return (try? procfs.link("\(pid)/exe")).map { UntrustedText($0.withoutDeletedSuffix) }
    }

    private func arguments(_ pid: Int32) -> ProcessArguments? {
        WorkerProgress.enter(.details, pid)
        return (try? procfs.prefix(of: "\(pid)/cmdline", count: ProcessArguments.maxShown)).map(ProcessArguments.init)
    }
}

/// The arguments of a process, as its memory shows them (proc_pid_cmdline(5)). It may write there what it likes.
package struct ProcessArguments: Equatable, Sendable {
    /// Each argument ends with a zero byte.
    let bytes: [UInt8]
    /// Each of them as text. Of twenty thousand sockets of one process it is asked for each time.
    package let list: [String]

    /// Longer ones are cut where they are shown.
    static let maxShown = 4096
    /// Longer ones do not match. The kernel allows some 6 MiB by default (execve(2)).
    static let maxSize = 8 << 20

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        var parts = bytes.split(separator: 0, omittingEmptySubsequences: false)
        if parts.last?.isEmpty ?? false { parts.removeLast() }
        list = parts.map { UntrustedText($0).decoded }
    }
}

import Glibc
import SystemPackage

/// A process as it was found. Thousands of sockets may share it.
package final class ProcessIdentity: Equatable, Sendable {
    package let pid: Int32
    package let name: UntrustedText
    /// Where the executable lies, in the process's own mount namespace; nil if that may not be read.
    package let executable: UntrustedText?
    /// The effective user.
    package let uid: UInt32
    /// Clock ticks since boot; with the PID it names the process for good.
    package let startTime: UInt64
    /// The inode of its network namespace; nil if that may not be read.
    package let networkNamespace: UInt64?
    /// As it was read when the process was found.
    let status: ProcessStatus?

    package init(
        pid: Int32, name: UntrustedText, executable: UntrustedText?, uid: UInt32, startTime: UInt64,
        networkNamespace: UInt64?, status: ProcessStatus? = nil
    ) {
        self.pid = pid
        self.name = name
        self.executable = executable
        self.uid = uid
        self.startTime = startTime
        self.networkNamespace = networkNamespace
        self.status = status
    }

    package static func == (one: ProcessIdentity, other: ProcessIdentity) -> Bool {
        one === other
            || one.pid == other.pid && one.startTime == other.startTime && one.name == other.name
                && one.executable == other.executable && one.uid == other.uid
                && one.networkNamespace == other.networkNamespace && one.status == other.status
    }
}

/// A process of the selection, held, with the network namespace whose sockets it is asked for.
struct MatchedProcess {
    let handle: ProcessHandle
    let namespace: NetworkNamespace

    var pid: Int32 { handle.pid }
}

extension NetworkNamespaces {
    /// The process with its network namespace; nil if it is gone.
    func member(_ process: ProcessHandle) -> MatchedProcess? {
        namespace(of: process.pid).map { MatchedProcess(handle: process, namespace: $0) }
    }
}

/// What is not asked of processes, because it hung before.
struct ProcessLimits {
    /// Whether a process may be looked at at all. It is asked only for what comes close to the selection.
    var includes: (Int32) -> Bool = { _ in true }
    /// Processes whose links hung. They need not be of the selection.
    var excluded: Set<Int32> = []
    /// Processes whose link to the executable is not read.
    var hungExecutables: Set<Int32> = []
    /// No process is asked for its executable unless its comm, which never waits, is that name already.
    var isByComm = false
}

/// Finds the processes of a selection in `/proc`.
///
/// Each is held first and read afterwards, so that a recycled PID never joins one process's
/// name to another one's sockets.
struct ProcessFinder {
    let procfs: ProcFS
    let selection: ProcessSelection
    private let limits: ProcessLimits
    /// The path of the executable, as it was given and without symbolic links: the kernel's link shows it so.
    let wantedPaths: [[UInt8]]
    private let scan: CommScan

    init(procfs: ProcFS, selection: ProcessSelection, limits: ProcessLimits = ProcessLimits()) {
        self.procfs = procfs
        self.selection = selection
        self.limits = limits
        scan = CommScan(
            root: procfs.root.rawValue, names: selection.names, hung: limits.hungExecutables, isByComm: limits.isByComm)
        wantedPaths = selection.executable.map { [Array($0.utf8)] + (Self.resolved($0).map { [$0] } ?? []) } ?? []
    }

    private static func resolved(_ path: String) -> [UInt8]? {
        WorkerProgress.enter(.executable)
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return Array(UnsafeRawBufferPointer(start: resolved, count: strlen(resolved)))
    }

    /// - Throws: `tooManyOpenFiles` rather than to leave out a process that cannot be held.
    func processes() throws -> [ProcessHandle] {
        try pids().compactMap { pid in
            guard limits.includes(pid), let handle = ProcessHandle(pid: pid, procfs: procfs) else { return nil }
            if handle.isUnknown || handle.descriptor.map(OpenFiles.areUsedUp) ?? false { throw Errno.tooManyOpenFiles }
            return matches(pid) ? handle : nil
        }
    }

    /// Numbers of the selection that are threads, with their processes: `/proc/TID` exists, though no listing shows it.
    func threads() -> [(tid: Int32, process: Int32)] {
        selection.pids.sorted().compactMap { pid in
            WorkerProgress.enter(.user, pid)
            guard let process = (try? procfs.status("\(pid)"))?.threadGroup, process != pid else { return nil }
            return (pid, process)
        }
    }

    /// Everything about the process; nil if it is gone.
    func identity(of process: MatchedProcess) -> ProcessIdentity? {
        let pid = process.pid
        WorkerProgress.enter(.identity, pid)
        guard let stat = try? procfs.read("\(pid)/stat", { ProcessStat($0) }),
            let status = try? procfs.status("\(pid)")
        else { return nil }
        return ProcessIdentity(
            pid: pid, name: stat.name, executable: executable(pid), uid: status.uid,
            startTime: stat.startTime, networkNamespace: process.namespace.inode,
            status: status)
    }

    /// Those that are worth a closer look: only what turns a process down is read of all of them.
    private func pids() throws -> [Int32] {
        if selection.names.isEmpty {
            let isEveryone = selection.anyProcess || (selection.executable != nil && selection.pids.isEmpty)
            return isEveryone ? try procfs.numbers(in: ".") : selection.pids.sorted()
        }
        if selection.anyProcess { return try procfs.numbers(in: ".") }
        WorkerProgress.enter(.processNames)
        let named = try scan.matching()
        return selection.pids.isEmpty ? named : selection.pids.union(named).sorted()
    }

    /// Whether the selection means a process that is there.
    func matches(_ pid: Int32) -> Bool {
        guard hasWantedName(pid), hasWantedExecutable(pid)
        else { return false }
        guard let uid = selection.uid else { return true }
        WorkerProgress.enter(.user, pid)
        return (try? procfs.status("\(pid)"))?.users.areAll(uid) ?? false
    }

    /// Neither names nor numbers: the executable alone selects.
    private func hasWantedName(_ pid: Int32) -> Bool {
        if selection.anyProcess || selection.pids.contains(pid) { return true }
        return selection.names.isEmpty ? selection.pids.isEmpty : scan.matches(pid)
    }

    /// In one mount namespace a path is one file. A process in a mount namespace of its own has whatever paths it
    /// likes: where the path exists for us too, it must be the very same file. Only for that the file behind the link
    /// is asked; it may lie on a file server that does not answer.
    private func hasWantedExecutable(_ pid: Int32) -> Bool {
        guard let wanted = selection.executable else { return true }
        if limits.isByComm && !hasComm(of: wanted, pid) { return false }
        WorkerProgress.enter(.executable, pid)
        let link: [UInt8]
        do {
            link = try procfs.link("\(pid)/exe")
        } catch let error as Errno where error.isPermission {
            // Not known. A process that bears the name counts as meant: its descriptors will say that they may not be
            // read, either.
            return hasNameOf(wanted, pid)
        } catch {
            return false
        }
        if wantedPaths.contains(where: link.elementsEqual) {
            if sharesMounts(pid) { return true }
            WorkerProgress.enter(.executable, pid)
            var status = stat()
            guard stat(wanted, &status) == 0 else { return true }
            return procfs.identity("\(pid)/exe")
                == FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        }
        // Replaced by an update while it runs. Which file it was cannot be told any more; where anybody may make
        // a path of that name, in a mount namespace of their own, it is not believed.
        guard wantedPaths.contains(where: link.withoutDeletedSuffix.elementsEqual), sharesMounts(pid) else {
            return false
        }
        // A file may have the kernel's marker in its own name.
        WorkerProgress.enter(.executable, pid)
        var status = stat()
        let path = link + [0]
        let exists = path.withUnsafeBytes { stat($0.baseAddress!.assumingMemoryBound(to: CChar.self), &status) == 0 }
        guard exists else { return true }
        return procfs.identity("\(pid)/exe")
            != FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }

    /// By comm, or by the argument that it was started with.
    private func hasNameOf(_ path: String, _ pid: Int32) -> Bool {
        if hasComm(of: path, pid) { return true }
        let arguments = try? procfs.prefix(of: "\(pid)/cmdline", count: Int(PATH_MAX))
        let first = (arguments ?? []).prefix { $0 != 0 }
        return wantedPaths.contains(where: first.elementsEqual)
    }

    private func hasComm(of path: String, _ pid: Int32) -> Bool {
        let name = Array(path.utf8).baseName.prefix(CommScan.maxCommLength)
        return (try? procfs.read("\(pid)/comm", { $0.dropLast().elementsEqual(name) })) ?? false
    }

    private func sharesMounts(_ pid: Int32) -> Bool {
        WorkerProgress.enter(.namespace, pid)
        guard let own = try? procfs.link("self/ns/mnt") else { return false }
        return own == (try? procfs.link("\(pid)/ns/mnt"))
    }

    private func executable(_ pid: Int32) -> UntrustedText? {
        (try? procfs.link("\(pid)/exe")).map { UntrustedText($0.withoutDeletedSuffix) }
    }
}

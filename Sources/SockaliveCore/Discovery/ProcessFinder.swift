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
    /// Where it runs; nil if that may not be read.
    package let place: ProcessPlace?
    /// Its arguments, as far as they are shown; nil if they were not asked for, or may not be read.
    package let arguments: ProcessArguments?

    package init(
        pid: Int32, name: UntrustedText, executable: UntrustedText?, uid: UInt32, startTime: UInt64,
        networkNamespace: UInt64?, status: ProcessStatus? = nil, place: ProcessPlace? = nil,
        arguments: ProcessArguments? = nil
    ) {
        self.pid = pid
        self.name = name
        self.executable = executable
        self.uid = uid
        self.startTime = startTime
        self.networkNamespace = networkNamespace
        self.status = status
        self.place = place
        self.arguments = arguments
    }

    package static func == (one: ProcessIdentity, other: ProcessIdentity) -> Bool {
        one === other
            || one.pid == other.pid && one.startTime == other.startTime && one.name == other.name
                && one.executable == other.executable && one.uid == other.uid
                && one.networkNamespace == other.networkNamespace && one.status == other.status
                && one.place == other.place && one.arguments == other.arguments
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

/// Whether a selection means a process.
enum ProcessMatch {
    case no, yes
    /// What decides could not be read.
    case unknown(UnansweredProcess.Reason)
}

/// Answers whether a selection means a process.
struct ProcessFinder {
    let procfs: ProcFS
    let selection: ProcessSelection
    private let places: ProcessPlaces
    /// Only executables of processes with that name are asked for.
    private let isByComm: Bool
    /// The path of the executable, as it was given and without symbolic links: the kernel's link shows it so.
    let wantedPaths: [[UInt8]]
    private let scan: CommScan

    init(procfs: ProcFS, selection: ProcessSelection, limits: ProcessLimits, places: ProcessPlaces) {
        self.procfs = procfs
        self.selection = selection
        self.places = places
        isByComm = limits.isByComm
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

    /// Whether the selection means a process that is there. What is read first costs least, or cannot be made to hang.
    func match(_ pid: Int32) -> ProcessMatch {
        guard !selection.isEmpty, hasWantedName(pid) else { return .no }
        // Arguments may hang as the link to the executable does.
        if isByComm && !selection.commands.isEmpty { return .no }
        if !selection.places.isEmpty {
            do {
                guard try places.matches(pid, selection.places) else { return .no }
            } catch {
                return Self.unknown(error, UnansweredProcess.Reason.cgroup)
            }
        }
        if let uid = selection.uid {
            WorkerProgress.enter(.user, pid)
            guard (try? procfs.status("\(pid)"))?.users.areAll(uid) ?? false else { return .no }
        }
        guard hasWantedExecutable(pid) else { return .no }
        return selection.commands.isEmpty ? .yes : matchArguments(pid)
    }

    func matches(_ pid: Int32) -> Bool {
        if case .yes = match(pid) { true } else { false }
    }

    /// A process that is gone is none.
    private static func unknown(_ error: any Error, _ reason: (Errno) -> UnansweredProcess.Reason) -> ProcessMatch {
        let error = error as? Errno ?? .ioError
        return [.noSuchFileOrDirectory, .noSuchProcess].contains(error) ? .no : .unknown(reason(error))
    }

    private func matchArguments(_ pid: Int32) -> ProcessMatch {
        // The text is among the arguments of this program, too.
        if procfs.isOwn && [getpid(), getppid()].contains(pid) { return .no }
        WorkerProgress.enter(.arguments, pid)
        do {
            let matches = try procfs.read("\(pid)/cmdline", limit: ProcessArguments.maxSize) { text in
                text.split(separator: 0).contains { argument in
                    selection.commands.contains {
                        argument.elementsEqual($0.bytes) || argument.baseName.elementsEqual($0.bytes)
                    }
                }
            }
            return matches ? .yes : .no
        } catch Errno.fileTooLarge {
            return .no
        } catch {
            return Self.unknown(error, UnansweredProcess.Reason.arguments)
        }
    }

    /// Neither names nor numbers: something else selects.
    private func hasWantedName(_ pid: Int32) -> Bool {
        if selection.anyProcess || selection.pids.contains(pid) { return true }
        return selection.isByFilter || (!selection.names.isEmpty && scan.matches(pid))
    }

    /// In one mount namespace a path is one file. A process in a mount namespace of its own has whatever paths it
    /// likes: where the path exists for us too, it must be the very same file. Only for that the file behind the link
    /// is asked; it may lie on a file server that does not answer.
    private func hasWantedExecutable(_ pid: Int32) -> Bool {
        guard let wanted = selection.executable else { return true }
        if isByComm && !hasComm(of: wanted, pid) { return false }
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
}

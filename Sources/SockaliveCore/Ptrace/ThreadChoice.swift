import SystemPackage

/// Chooses which thread of a process is held still.
struct ThreadChoice {
    let procfs: ProcFS
    let pid: Int32
    let fd: Int32
    let inode: UInt64

    private static let maxThreads = 4096
    /// More than any signal frame without AMX takes.
    private static let minStackRoom: UInt64 = 16384

    /// How willingly a thread is held.
    private enum Rank: Int, Comparable {
        case never
        /// Traced already: the seize will say so.
        case traced
        case asleep, running
        /// It has a stack of its own even while it stands on another.
        case main
        /// It stops soonest, and it is known that there is room on its stack.
        case asleepWithRoom

        static func < (one: Self, other: Self) -> Bool { one.rawValue < other.rawValue }
    }

    /// Of the threads whose own descriptor table holds the socket, the best one.
    ///
    /// - Parameter map: nil where any thread will do.
    /// - Throws: `noSuchProcess`; `resourceBusy` where all are in state D; `staleNFSFileHandle` where none holds it;
    ///   `permissionDenied` where that may not be read.
    func best(_ map: MemoryMap?) throws -> Int32 {
        let threads = try procfs.numbers(in: "\(pid)/task").prefix(Self.maxThreads)
        let enough: Rank = map == nil ? .traced : .asleepWithRoom
        var best: (tid: Int32, rank: Rank) = (0, .never)
        var error = Errno.noSuchProcess
        for tid in threads where best.rank < enough {
            let state = state(of: tid)
            let rank = rank(tid, state, map)
            if state == "D" && error == .noSuchProcess { error = .resourceBusy }
            guard rank > best.rank else { continue }
            do {
                if try holdsSocket(tid) { best = (tid, rank) } else { error = .staleNFSFileHandle }
            } catch let denial as Errno where denial.isPermission {
                error = denial
            } catch {
                // This thread has ended.
            }
        }
        guard best.rank > .never else { throw error }
        return best.tid
    }

    /// False where the thread has another file under the number, or none.
    ///
    /// - Throws: `Errno` where that may not be read.
    private func holdsSocket(_ tid: Int32) throws -> Bool {
        do {
            return try procfs.link("\(pid)/task/\(tid)/fd/\(fd)").inode(ofKind: "socket") == inode
        } catch Errno.noSuchFileOrDirectory {
            return false
        }
    }

    /// D does not stop, Z and X are dead.
    private func rank(_ tid: Int32, _ state: Character?, _ map: MemoryMap?) -> Rank {
        let isAsleep = state == "S" || state == "T"
        if isAsleep, let map, hasRoom(tid, map) { return .asleepWithRoom }
        if isAsleep || state == "R" { return tid == pid ? .main : isAsleep ? .asleep : .running }
        return state == "t" ? .traced : .never
    }

    private func state(of tid: Int32) -> Character? {
        (try? procfs.read("\(pid)/task/\(tid)/stat") { ProcessStat($0) })??.state
    }

    private func hasRoom(_ tid: Int32, _ map: MemoryMap) -> Bool {
        guard let pointer = stackPointer(of: tid), let stack = map.stack(at: pointer) else { return false }
        return pointer - stack.span.lowerBound >= Self.minStackRoom
    }

    /// Of a thread that is not running: the last but one number of its `syscall` (proc_pid_syscall(5)).
    private func stackPointer(of tid: Int32) -> UInt64? {
        let words = procfs.text("\(pid)/task/\(tid)/syscall")?.split(separator: UInt8(ascii: " ")) ?? []
        guard words.count >= 2 else { return nil }
        return words[words.count - 2].dropFirst(2).hexadecimal()
    }
}

/// A process that was looked at, ready to be held.
struct RemoteTarget {
    let procfs: ProcFS
    let holder: SocketHolder
    let inode: UInt64
    let tid: Int32
    let gadgets: SyscallGadgets
    let status: ProcessStatus
    let stacks: [MemoryMap.Stack]
    let spareDescriptor: Int32
    /// What this process may do that the target's owner perhaps may not.
    let rights: OwnRights

    /// Whether a descriptor of the thread to hold is the socket.
    ///
    /// - Throws: `Errno` where that may not be read; false where there is no such descriptor.
    func isSocket(_ descriptor: Int32) throws(Errno) -> Bool {
        do {
            return try procfs.link("\(holder.pid)/task/\(tid)/fd/\(descriptor)").inode(ofKind: "socket") == inode
        } catch {
            let error = error as? Errno ?? .ioError
            if error == .noSuchFileOrDirectory { return false }
            throw error
        }
    }

    func status(of thread: String) throws(Errno) -> ProcessStatus {
        do {
            return try procfs.status(thread)
        } catch {
            throw error as? Errno ?? .ioError
        }
    }

    /// Another thread may put a filter on all of them while this one is held (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC), and
    /// it would meet a call that the program never makes. Whoever may suspend it has to be asked instead, if there is
    /// somebody.
    var mayBeFilteredMeanwhile: Bool { rights.leavesFiltersToParent && !hasOneThread }

    /// Nobody touches the process's descriptors while that one is held.
    var hasOneThread: Bool { procfs.threadCount(of: holder.pid) == 1 }
}

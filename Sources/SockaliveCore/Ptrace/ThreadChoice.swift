import SystemPackage

/// Chooses the thread of a process to hold.
struct ThreadChoice {
    let procfs: ProcFS
    let pid: Int32
    let fd: Int32
    let inode: UInt64
    /// Threads in their own code that cannot be held there. Then any thread in a call is better than another such one.
    var excluded: Set<Int32> = []

    private static let maxThreads = 4096
    private static let maxWaiting = 64
    /// Larger than any signal frame without AMX.
    private static let minStackRoom: UInt64 = 16384

    /// How suitable a thread is.
    private enum Rank: Int, Comparable {
        case never
        /// Already traced. The seize reports it.
        case traced
        /// It sends or receives, and would return a part of it (``SleepingCall/mayBeHalfDone``).
        case transferring
        /// Its wait would begin anew (``TimedWait``), and it has no room for the recovery frames.
        case waiting
        case asleep, running
        /// The wait begins anew, which is late; without room for the frames a death of this process would be worse.
        case waitingWithRoom
        /// It has its own stack, even if it currently uses another one.
        case main
        /// It stops fastest, and its stack has enough room.
        case asleepWithRoom

        static func < (one: Self, other: Self) -> Bool { one.rawValue < other.rawValue }
    }

    /// The most suitable thread whose own descriptor table contains the socket.
    ///
    /// - Parameter map: nil if any thread is suitable.
    /// - Throws: `noSuchProcess`, also if the main thread has exited, and threads ended that may have had the socket;
    ///   `resourceBusy` if all are in state D; `staleNFSFileHandle` if none has the socket; `permissionDenied` if this
    ///   may not be read.
    func best(_ map: MemoryMap?) throws -> Int32 {
        let threads = try procfs.numbers(in: "\(pid)/task").prefix(Self.maxThreads).enumerated()
        let enough: Rank = map == nil ? .traced : .asleepWithRoom
        var best: (tid: Int32, rank: Rank) = (0, .never)
        var error = Errno.noSuchProcess
        var hasSeenEnd = false
        for (number, tid) in threads where best.rank < enough && !excluded.contains(tid) {
            // A server of a thousand threads that all wait so is not asked for each of its sockets.
            if number >= Self.maxWaiting && [.waitingWithRoom, .transferring].contains(best.rank) { break }
            let state = state(of: tid)
            if state == nil { hasSeenEnd = true }
            let rank = rank(tid, state, map)
            if state == "D" && error == .noSuchProcess { error = .resourceBusy }
            guard rank > best.rank else { continue }
            do {
                if try holdsSocket(tid) {
                    best = (tid, rank)
                } else if procfs.hasEnded(tid, of: pid) {
                    hasSeenEnd = true
                } else {
                    error = .staleNFSFileHandle
                }
            } catch let denial as Errno where denial.isPermission {
                if procfs.hasEnded(tid, of: pid) { hasSeenEnd = true } else { error = denial }
            } catch {
                hasSeenEnd = true
            }
        }
        if best.rank > .never { return best.tid }
        // As long as the main thread lives, its table is nearly always that of all.
        if hasSeenEnd, error == .staleNFSFileHandle, procfs.hasEnded("\(pid)") { throw Errno.noSuchProcess }
        throw error
    }

    /// False if the number is another file in the thread's table, or is not open.
    ///
    /// - Throws: `Errno` if this may not be read.
    private func holdsSocket(_ tid: Int32) throws -> Bool {
        do {
            return try procfs.link("\(pid)/task/\(tid)/fd/\(fd)").inode(ofKind: "socket") == inode
        } catch Errno.noSuchFileOrDirectory {
            return false
        }
    }

    /// A thread in state D does not stop; in Z and X it is dead.
    private func rank(_ tid: Int32, _ state: Character?, _ map: MemoryMap?) -> Rank {
        let isAsleep = state == "S" || state == "T"
        if isAsleep, let map, let call = sleepingCall(of: tid) {
            if call.mayBeHalfDone { return .transferring }
            let hasRoom = hasRoom(call.stackPointer, map)
            if call.wait != nil && excluded.isEmpty { return hasRoom ? .waitingWithRoom : .waiting }
            if hasRoom { return .asleepWithRoom }
        }
        if isAsleep || state == "R" { return tid == pid ? .main : isAsleep ? .asleep : .running }
        return state == "t" ? .traced : .never
    }

    private func state(of tid: Int32) -> Character? {
        (try? procfs.read("\(pid)/task/\(tid)/stat") { ProcessStat($0) })??.state
    }

    private func hasRoom(_ pointer: UInt64, _ map: MemoryMap) -> Bool {
        map.stack(at: pointer).map { pointer - $0.span.lowerBound >= Self.minStackRoom } ?? false
    }

    private func sleepingCall(of tid: Int32) -> SleepingCall? {
        procfs.text("\(pid)/task/\(tid)/syscall").flatMap(SleepingCall.init)
    }
}

/// An inspected process, ready to be held.
struct RemoteTarget {
    let procfs: ProcFS
    let holder: SocketHolder
    let inode: UInt64
    let tid: Int32
    let gadgets: SyscallGadgets
    let status: ProcessStatus
    let stacks: [MemoryMap.Stack]
    let spareDescriptor: Int32
    /// The rights of this process, which the target's owner may lack.
    let rights: OwnRights

    /// Whether a descriptor of the thread is the socket; false if it is not open.
    ///
    /// - Throws: `Errno` if this may not be read.
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

    /// Another thread may add a filter to all threads while this one is held (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC).
    /// The filter would see a call that the program never makes. If the parent may suspend it, the parent must do the
    /// call.
    var mayBeFilteredMeanwhile: Bool { rights.leavesFiltersToParent && !hasOneThread }

    /// If there is one thread, no other thread changes the descriptors while it is held.
    var hasOneThread: Bool { procfs.threadCount(of: holder.pid) == 1 }
}

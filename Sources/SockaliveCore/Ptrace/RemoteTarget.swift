import SystemPackage

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

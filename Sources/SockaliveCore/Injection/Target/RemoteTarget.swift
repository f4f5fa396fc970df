/// A process that was looked at, ready to be held.
struct RemoteTarget {
    let procfs: ProcFS
    let holder: SocketHolder
    let inode: UInt64
    let tid: Int32
    let code: MachineCode
    let status: ThreadStatus
    let stacks: [MemoryMap.Stack]
    let spareDescriptor: Int32

    /// Whether a descriptor of the thread to hold is the socket.
    func isSocket(_ descriptor: Int32) -> Bool {
        let link = try? procfs.link("\(holder.pid)/task/\(tid)/fd/\(descriptor)")
        return link?.inode(ofKind: "socket") == inode
    }

    /// Nobody touches the process's descriptors while that one is held.
    var hasOneThread: Bool { procfs.threadCount(of: holder.pid) == 1 }
}

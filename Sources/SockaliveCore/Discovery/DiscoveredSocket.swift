import SystemPackage

/// A process and the number under which it holds a socket.
public struct SocketHolder: Hashable, Sendable {
    public let pid: Int32
    public let fd: Int32
}

/// One TCP socket of a matching process: however many descriptors and processes hold it, one.
public struct DiscoveredSocket: Equatable, Sendable {
    /// The first process found to hold it.
    public let process: ProcessInfo
    /// By process, then by number. Empty if the process's descriptors may not be read.
    public let holders: [SocketHolder]
    public let row: SocketRow

    public var inode: UInt64 { row.inode }
}

/// What discovery found, and what stood in its way.
public struct Snapshot: Sendable {
    public let sockets: [DiscoveredSocket]
    /// Every matching process, whether or not it has a matching socket.
    public let processes: [ProcessInfo]
    /// Matching processes whose descriptors may not be read, and the error.
    public let denied: [Int32: Errno]
}

import SystemPackage

/// A process and the number under which it holds a socket.
public struct SocketHolder: Hashable, Comparable, Sendable {
    public let pid: Int32
    public let fd: Int32

    public static func < (left: SocketHolder, right: SocketHolder) -> Bool {
        (left.pid, left.fd) < (right.pid, right.fd)
    }
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
    /// The PID of every matching process, whether or not it has a matching socket.
    public let processes: [Int32]
    /// Matching processes whose descriptors may not be read, and the error.
    public let denied: [Int32: Errno]
    /// The processes with a matching socket, held: their PIDs cannot be recycled unnoticed.
    let handles: [Int32: ProcessHandle]
}

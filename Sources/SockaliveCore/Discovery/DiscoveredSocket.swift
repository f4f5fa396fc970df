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
    public let process: ProcessIdentity
    /// By process, then by number. Empty if the process's descriptors may not be read.
    public let holders: [SocketHolder]
    public let row: SocketRow

    public var inode: UInt64 { row.inode }
    public var cookie: UInt64? { row.cookie }

    /// Other sockets of the same table have the same inode: only the cookie, or its two ends, tell it apart.
    var sharesInode = false

    var identity: SocketIdentity { SocketIdentity(inode: inode, cookie: cookie, sharesInode: sharesInode) }
}

/// Which socket a descriptor has to be.
struct SocketIdentity: Equatable {
    let inode: UInt64
    let cookie: UInt64?
    let sharesInode: Bool

    init(inode: UInt64, cookie: UInt64? = nil, sharesInode: Bool = false) {
        self.inode = inode
        self.cookie = cookie
        self.sharesInode = sharesInode
    }
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

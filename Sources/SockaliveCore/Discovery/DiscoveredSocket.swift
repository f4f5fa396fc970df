import SystemPackage

/// One TCP socket of a matching process: however many descriptors and processes hold it, one.
///
/// Twenty thousand of them go from list to list. A copy is one reference, and no two sockets have the same: threads that
/// count the references to one object at the same time wait for each other.
package struct DiscoveredSocket: Equatable, Sendable {
    private var fields: Fields

    /// They change only while one copy of the socket has them.
    private final class Fields: @unchecked Sendable {
        var process: ProcessIdentity
        /// Most sockets have one holder: an array for it would be one more piece of memory each.
        var holder: SocketHolder?
        var others: [SocketHolder]
        var row: SocketRow
        var sharesInode: Bool
        let networkNamespace: UInt64?
        var isUndecided = false

        init(
            _ process: ProcessIdentity, _ holder: SocketHolder?, _ others: [SocketHolder], _ row: SocketRow,
            sharesInode: Bool, networkNamespace: UInt64?
        ) {
            self.process = process
            self.holder = holder
            self.others = others
            self.row = row
            self.sharesInode = sharesInode
            self.networkNamespace = networkNamespace
        }

        var copy: Fields {
            let copy = Fields(
                process, holder, others, row, sharesInode: sharesInode, networkNamespace: networkNamespace)
            copy.isUndecided = isUndecided
            return copy
        }
    }

    /// To change them.
    private var own: Fields {
        mutating get {
            if !isKnownUniquelyReferenced(&fields) { fields = fields.copy }
            return fields
        }
    }

    init(
        process: ProcessIdentity, holder: SocketHolder?, others: [SocketHolder] = [], row: SocketRow,
        sharesInode: Bool = false, networkNamespace: UInt64? = nil
    ) {
        fields = Fields(
            process, holder, others, row, sharesInode: sharesInode, networkNamespace: networkNamespace)
    }

    init(
        process: ProcessIdentity, holders: [SocketHolder], row: SocketRow, sharesInode: Bool = false,
        networkNamespace: UInt64? = nil
    ) {
        self.init(
            process: process, holder: holders.first, others: Array(holders.dropFirst()), row: row,
            sharesInode: sharesInode, networkNamespace: networkNamespace)
    }

    /// The first process found to hold it.
    package internal(set) var process: ProcessIdentity {
        get { fields.process }
        set { own.process = newValue }
    }

    /// By process, then by number. Empty if the process's descriptors may not be read.
    package internal(set) var holders: [SocketHolder] {
        get { (fields.holder.map { [$0] } ?? []) + fields.others }
        set {
            let own = own
            own.holder = newValue.first
            own.others = Array(newValue.dropFirst())
        }
    }

    /// The first of them.
    package var holder: SocketHolder? { fields.holder }
    var hasOtherHolders: Bool { !fields.others.isEmpty }

    mutating func add(_ holder: SocketHolder) { own.others.append(holder) }

    package internal(set) var row: SocketRow {
        get { fields.row }
        set { own.row = newValue }
    }

    package var inode: UInt64 { row.inode }
    package var cookie: UInt64? { row.cookie }

    /// Other sockets of the same table have the same inode: only the cookie, or its two ends, tell it apart.
    var sharesInode: Bool {
        get { fields.sharesInode }
        set { own.sharesInode = newValue }
    }

    /// The inode of the network namespace that it is in; nil where that is not known. A process may hold sockets of
    /// several.
    package var networkNamespace: UInt64? { fields.networkNamespace }

    /// Whether it is a candidate depends on its interface, which is not known.
    var isUndecided: Bool {
        get { fields.isUndecided }
        set { if newValue != fields.isUndecided { own.isUndecided = newValue } }
    }

    var identity: SocketIdentity { SocketIdentity(inode: inode, cookie: cookie, sharesInode: sharesInode) }

    package static func == (left: DiscoveredSocket, right: DiscoveredSocket) -> Bool {
        left.process == right.process && left.holders == right.holders && left.row == right.row
            && left.sharesInode == right.sharesInode && left.networkNamespace == right.networkNamespace
            && left.isUndecided == right.isUndecided
    }
}

/// What discovery found, and what stood in its way.
package struct Snapshot: Sendable {
    package let sockets: [DiscoveredSocket]
    /// The PID of every matching process, whether or not it has a matching socket.
    package let processes: [Int32]
    /// Matching processes of which nobody knows whether they have such sockets.
    let unanswered: [UnansweredProcess]
    /// The processes with a matching socket, held: their PIDs cannot be recycled unnoticed.
    let handles: [Int32: ProcessHandle]
}

/// A matching process of which nobody knows whether it has such sockets.
struct UnansweredProcess: Sendable {
    enum Reason: Sendable {
        /// Its descriptors may not be read, or not for want of descriptors of our own.
        case descriptors(Errno)
        /// The socket is in its io_uring, and in no descriptor table of a matching process. It is certain if the kernel
        /// lists what the io_uring holds; else no process has it, and it is of the same user.
        case ring(SocketRow, isCertain: Bool)
        /// The number is that of a thread of this process.
        case thread(of: Int32)
        /// Its cgroup, or its arguments, could not be read: nobody knows whether it is meant.
        case cgroup(Errno)
        case arguments(Errno)
        /// Its container or pod has no name that can be known here, and may be the one that is looked for.
        case unknownName(option: String, kind: String, id: String)
    }

    let pid: Int32
    let name: UntrustedText?
    let reason: Reason
}

extension UnansweredProcess {
    /// Its descriptors may not be read.
    var isPermission: Bool {
        switch reason {
        case .descriptors(let error), .cgroup(let error), .arguments(let error): error.isPermission
        case .ring, .thread, .unknownName: false
        }
    }

    private func unread(_ what: String, _ error: Errno) -> SocketFailure {
        SocketFailure(
            error.isPermission ? .permission : .other, error,
            "its \(what) could not be read (\(error)), so nobody knows whether it is meant",
            remedy: error.isPermission ? "run as root, or where /proc shows all processes (hidepid=0)" : "run again")
    }

    func failure(in procfs: ProcFS) -> SocketFailure {
        switch reason {
        case .descriptors(let error) where error.isPermission:
            let rights = MissingRights(procfs: procfs, pid: pid)
            return SocketFailure(
                .permission, error,
                "its descriptors may not be read, so nobody knows whether it has such a connection: \(rights.reason)",
                remedy: rights.remedy)
        case .descriptors(let error):
            return SocketFailure(
                .other, error, "its descriptors could not be read (\(error))",
                remedy: error.isOfOpenFiles ? "raise the limit of open files (ulimit -n)" : "run again")
        case .ring(let row, let isCertain):
            let place =
                isCertain
                ? "is a direct descriptor of its io_uring"
                : "of its user is in no descriptor table; it is probably a direct descriptor of its io_uring"
            return SocketFailure(
                .unsupported, .notSupported,
                "\(row.local) → \(row.remote) \(place), and those cannot be reached from outside",
                remedy: "let the program set SO_KEEPALIVE itself, or use ordinary descriptors")
        case .thread(let process):
            return SocketFailure(
                .other, .invalidArgument, "\(pid) is the number of a thread, not of a process",
                remedy: "name its process: --pid \(process)")
        case .cgroup(let error): return unread("cgroup", error)
        case .arguments(let error): return unread("command line", error)
        case .unknownName(let option, let kind, let id):
            return SocketFailure(
                .other, .noData,
                "\(UntrustedText(option).escaped): no \(kind) of that name can be known here",
                remedy: "its ID works (\(id) is that of this process)")
        }
    }
}

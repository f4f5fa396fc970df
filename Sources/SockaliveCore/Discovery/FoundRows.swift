import SystemPackage

/// A row of a socket table, with the network namespace that it is in.
struct FoundRow: Equatable {
    var row: SocketRow
    /// That of the process, as a rule: a process may hold sockets of several namespaces.
    let namespace: NetworkNamespace

    func isSameConnection(as other: FoundRow) -> Bool {
        namespace == other.namespace && row.isSameConnection(as: other.row)
    }
}

extension SocketRow {
    /// Within one network namespace.
    func isSameConnection(as other: SocketRow) -> Bool {
        cookie == other.cookie && family == other.family && local == other.local && remote == other.remote
            && interface?.index == other.interface?.index
    }
}

/// Rows by inode, as a rule one each.
struct FoundRows {
    private(set) var all: [FoundRow] = []
    private var numbers = InodeIndex()

    init() {}

    init(_ rows: some Sequence<FoundRow>) {
        for row in rows { add(row) }
    }

    mutating func reserveCapacity(_ count: Int) {
        all.reserveCapacity(count)
    }

    /// How many inodes have rows.
    var inodeCount: Int { numbers.count }

    func contains(_ inode: UInt64) -> Bool { numbers.first(inode) != nil }

    subscript(inode: UInt64) -> [FoundRow] {
        @inline(never)
        get { numbers.all(inode).map { all[$0] } }
    }

    /// The number of the only row with an inode; nil where there are several, or none.
    func only(_ inode: UInt64) -> Int? { numbers.only(inode) }

    /// A connection that is known gets the new row: a dump that is repeated tells of it once more.
    @inline(never)
    mutating func add(_ row: FoundRow) {
        let inode = row.row.inode
        if contains(inode), let known = numbers.all(inode).first(where: { all[$0].isSameConnection(as: row) }) {
            all[known] = row
            return
        }
        numbers.add(all.count, inode)
        all.append(row)
    }

    /// The first ones are not copied.
    @inline(never)
    mutating func add(_ rows: FoundRows) {
        if all.isEmpty {
            self = rows
        } else {
            for row in rows.all { add(row) }
        }
    }
}

extension [FoundRow] {
    /// All subflows of an MPTCP socket bear its inode (net/mptcp/subflow.c, mptcp_subflow_create_socket): the
    /// one that has been idle for longest stands for it, being the first that a firewall forgets.
    var longestIdle: FoundRow? { self.max { ($0.row.idleSeconds ?? 0) < ($1.row.idleSeconds ?? 0) } }
}

import SystemPackage

/// A row of a socket table, with the network namespace that it is in.
struct FoundRow {
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

/// The numbers of what is listed, by inode, as a rule one each: a busy host has twenty thousand inodes, and hardly one
/// twice. A dictionary of arrays would allocate memory for each.
struct InodeIndex {
    private var first: [UInt64: Int] = [:]
    private var further: [UInt64: [Int]] = [:]

    var inodeCount: Int { first.count }

    mutating func reserveCapacity(_ count: Int) { first.reserveCapacity(count) }

    func contains(_ inode: UInt64) -> Bool { first[inode] != nil }

    func hasSeveral(_ inode: UInt64) -> Bool { !further.isEmpty && further[inode] != nil }

    /// nil where there are several, or none.
    func only(_ inode: UInt64) -> Int? { hasSeveral(inode) ? nil : first[inode] }

    func numbers(of inode: UInt64) -> [Int] {
        first[inode].map { [$0] + further[inode, default: []] } ?? []
    }

    mutating func add(_ number: Int, of inode: UInt64) {
        // Found or inserted by one search.
        func isNew(_ place: inout Int) -> Bool { place == number }
        if !isNew(&first[inode, default: number]) { further[inode, default: []].append(number) }
    }
}

/// Rows of socket tables.
struct FoundRows {
    private(set) var all: [FoundRow] = []
    private var index = InodeIndex()

    init() {}

    init(_ rows: some Sequence<FoundRow>) {
        for row in rows { add(row) }
    }

    mutating func reserveCapacity(_ count: Int) {
        all.reserveCapacity(count)
        index.reserveCapacity(count)
    }

    var inodeCount: Int { index.inodeCount }

    func contains(_ inode: UInt64) -> Bool { index.contains(inode) }

    subscript(inode: UInt64) -> [FoundRow] { index.numbers(of: inode).map { all[$0] } }

    /// The number of the only row with an inode; nil where there are several, or none.
    func only(_ inode: UInt64) -> Int? { index.only(inode) }

    /// A connection that is known gets the new row: a dump that is repeated tells of it once more.
    mutating func add(_ row: FoundRow) {
        let inode = row.row.inode
        if let known = index.numbers(of: inode).first(where: { all[$0].isSameConnection(as: row) }) {
            all[known] = row
        } else {
            index.add(all.count, of: inode)
            all.append(row)
        }
    }

    /// The first ones are not copied.
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

import SystemPackage

/// The rows of a network namespace. Thousands of processes may be compared with them.
struct NamespaceRows {
    /// By inode.
    let all: [SocketRow]
    let byUser: [UInt32: [SocketRow]]

    init(_ rows: [SocketRow]) {
        all = rows.sorted { $0.inode < $1.inode }
        byUser = Dictionary(grouping: all, by: \.uid)
    }
}

/// Gathers descriptors into sockets: however many descriptors and processes hold one, it is one.
struct SocketCollector {
    /// What makes a socket the same one. The inode alone does not: it has 32 bits and is given again after some hours
    /// of making sockets, and each network namespace is looked at by itself.
    private struct Key: Equatable {
        let inode: UInt64
        let cookie: UInt64?
        /// nil where the cookie tells sockets of all namespaces apart.
        let namespace: NetworkNamespace?
        /// Its two ends, where there is no cookie.
        let ends: [Endpoint]
        let interface: UInt32?
    }

    private struct Entry {
        var process: ProcessIdentity
        let row: SocketRow
        let namespace: NetworkNamespace
        var holders: [SocketHolder]
    }

    private let search: ProcessSearch
    private let areCookiesGlobal: Bool
    private var entries: [Entry] = []
    /// The first entry with an inode, and further ones: a busy host has twenty thousand inodes, and hardly one twice.
    private var indexByInode: [UInt64: Int] = [:]
    private var furtherByInode: [UInt64: [Int]] = [:]
    private var handles: [Int32: ProcessHandle] = [:]
    private var members: [Int32: MatchedProcess] = [:]
    private var hidden: [(process: MatchedProcess, error: Errno, rows: NamespaceRows)] = []
    private var ringOwners: [(process: MatchedProcess, files: RingOwner.Files, rows: NamespaceRows)] = []
    /// Sockets that some process holds, which need not match.
    private var heldElsewhere: Set<UInt64> = []
    private var threads: [UnansweredProcess] = []
    private let procfs: ProcFS

    /// - Parameter areCookiesGlobal: no two sockets of two namespaces have one cookie (Linux 5.4).
    init(procfs: ProcFS, search: ProcessSearch, areCookiesGlobal: Bool) {
        self.procfs = procfs
        self.search = search
        self.areCookiesGlobal = areCookiesGlobal
    }

    /// - Parameter count: so many sockets will come, as a rule.
    mutating func reserveCapacity(_ count: Int) {
        entries.reserveCapacity(entries.count + count)
        indexByInode.reserveCapacity(indexByInode.count + count)
    }

    /// Only processes with a matching socket are read any further.
    ///
    /// - Parameter each: hands on each descriptor of the process with the row of its socket.
    mutating func add(_ process: MatchedProcess, each: ((_ fd: Int32, _ found: FoundRow) -> Void) -> Void) {
        var identity: ProcessIdentity?
        handles[process.pid] = process.handle
        members[process.pid] = process
        each { fd, found in
            let holder = SocketHolder(pid: process.pid, fd: fd)
            if let index = index(of: found.row, in: found.namespace) {
                entries[index].holders.append(holder)
            } else {
                // Another holder of a socket that is known is asked for nothing.
                identity = identity ?? search.identity(of: process)
                guard let identity else { return }
                add(Entry(process: identity, row: found.row, namespace: found.namespace, holders: [holder]))
            }
        }
    }

    /// - Parameter rows: the table of the process's namespace.
    mutating func deny(_ process: MatchedProcess, _ error: Errno, rows: NamespaceRows) {
        hidden.append((process, error, rows))
    }

    mutating func add(ringOwner process: MatchedProcess, _ files: RingOwner.Files, rows: NamespaceRows) {
        ringOwners.append((process, files, rows))
    }

    /// Finds out which sockets other processes hold, if an io_uring may have one that the kernel does not list.
    ///
    /// - Parameter held: which of the sockets are in the descriptor table of any process.
    mutating func markHeld(_ held: (Set<UInt64>) throws -> Set<UInt64>) rethrows {
        let unknown = ringOwners.filter(\.files.isIncomplete).flatMap { process, _, rows in
            rows.all.filter { index(of: $0, in: process.namespace) == nil }.map(\.inode)
        }
        if !unknown.isEmpty { heldElsewhere = try held(Set(unknown)) }
    }

    mutating func add(thread tid: Int32, of process: Int32) {
        threads.append(UnansweredProcess(pid: tid, name: name(of: tid), reason: .thread(of: process)))
    }

    private func key(of row: SocketRow, in namespace: NetworkNamespace) -> Key {
        let isGlobal = areCookiesGlobal && row.cookie != nil
        return Key(
            inode: row.inode, cookie: row.cookie, namespace: isGlobal ? nil : namespace,
            ends: row.cookie == nil ? [row.local, row.remote] : [],
            interface: row.cookie == nil ? row.interface?.index : nil)
    }

    /// nil if it is not known yet.
    private func index(of row: SocketRow, in namespace: NetworkNamespace) -> Int? {
        guard let first = indexByInode[row.inode] else { return nil }
        let key = key(of: row, in: namespace)
        return ([first] + furtherByInode[row.inode, default: []]).first {
            self.key(of: entries[$0].row, in: entries[$0].namespace) == key
        }
    }

    private mutating func add(_ entry: consuming Entry) {
        let inode = entry.row.inode
        if indexByInode[inode] == nil {
            indexByInode[inode] = entries.count
        } else {
            furtherByInode[inode, default: []].append(entries.count)
        }
        entries.append(entry)
    }

    /// The sockets by process and number; behind them those out of reach.
    ///
    /// - Parameter others: processes of which nobody knows whether they match.
    mutating func snapshot(processes: [Int32], unanswered others: [UnansweredProcess] = []) -> Snapshot {
        for index in entries.indices {
            if entries[index].holders.count > 1 { entries[index].holders.sort() }
            // A socket of two processes was found with one of them; it is told with the first.
            let first = entries[index].holders[0].pid
            if first != entries[index].process.pid, let member = members[first],
                let identity = search.identity(of: member)
            {
                entries[index].process = identity
            }
        }
        if !areInOrder { entries.sort { $0.holders[0] < $1.holders[0] } }
        let rings = ringSockets
        let unanswered = addHidden(besides: rings) + rings + threads + others
        // By their numbers: an entry is not copied.
        let sockets = entries.indices.map { index in
            DiscoveredSocket(
                process: entries[index].process, holders: entries[index].holders, row: entries[index].row,
                sharesInode: !furtherByInode.isEmpty && furtherByInode[entries[index].row.inode] != nil,
                networkNamespace: entries[index].namespace.inode)
        }
        return Snapshot(sockets: sockets, processes: processes, unanswered: unanswered, handles: handles)
    }

    /// They are, where all belong to one process.
    private var areInOrder: Bool {
        entries.indices.dropFirst().allSatisfy { !(entries[$0].holders[0] < entries[$0 - 1].holders[0]) }
    }

    /// A socket that nobody readable holds, and whose user is that of a process that may not be
    /// read, is most likely that process's: it is a candidate out of reach, not none.
    ///
    /// - Parameter rings: whose sockets are not looked for elsewhere.
    /// - Returns: the processes that may have one of the other sockets that nobody readable holds: a process may change
    ///   its user after it has made a socket. Where there is no such socket, a process surely has none.
    private mutating func addHidden(besides rings: [UnansweredProcess]) -> [UnansweredProcess] {
        var answered: Set<Int32> = []
        let listed = Set(rings.compactMap(\.listedRow))
        let foreignUser = procfs.overflowUser
        hidden.sort { $0.process.pid < $1.process.pid }
        for (process, _, rows) in hidden {
            guard !rows.all.isEmpty, let identity = search.identity(of: process) else { continue }
            // In a user namespace all users from outside have one number: it tells nothing.
            for row in rows.byUser[identity.uid] ?? []
            where row.uid != foreignUser && !listed.contains(row.inode) {
                guard index(of: row, in: process.namespace) == nil else { continue }
                answered.insert(process.pid)
                add(Entry(process: identity, row: row, namespace: process.namespace, holders: []))
            }
        }
        var hasOrphans: [NetworkNamespace: Bool] = [:]
        return hidden.compactMap { process, error, rows in
            let namespace = process.namespace
            let hasOrphan = hasOrphans[namespace] ?? rows.all.contains { index(of: $0, in: namespace) == nil }
            hasOrphans[namespace] = hasOrphan
            guard !answered.contains(process.pid), !error.isPermission || hasOrphan else { return nil }
            return UnansweredProcess(pid: process.pid, name: name(of: process.pid), reason: .descriptors(error))
        }
    }

    /// Sockets that are in an io_uring and in no descriptor table.
    private var ringSockets: [UnansweredProcess] {
        ringOwners.compactMap { process, files, rows in
            let orphans = rows.all.filter { index(of: $0, in: process.namespace) == nil }
            guard !orphans.isEmpty, let identity = search.identity(of: process) else { return nil }
            let listed = orphans.first { files.sockets.contains($0.inode) }
            let likely =
                files.isIncomplete
                ? orphans.first { $0.uid == identity.uid && !heldElsewhere.contains($0.inode) } : nil
            guard let row = listed ?? likely else { return nil }
            return UnansweredProcess(
                pid: process.pid, name: identity.name, reason: .ring(row, isCertain: listed != nil))
        }
    }

    private func name(of pid: Int32) -> UntrustedText? {
        try? procfs.read("\(pid)/comm") { UntrustedText($0.dropLast()) }
    }
}

extension UnansweredProcess {
    /// The inode of the socket that the kernel lists in its io_uring.
    fileprivate var listedRow: UInt64? {
        if case .ring(let row, isCertain: true) = reason { row.inode } else { nil }
    }
}

extension ProcFS {
    /// The number that all users have who have none in this user namespace (user_namespaces(7)); nil in the first one,
    /// where each has its own.
    fileprivate var overflowUser: UInt32? {
        let map = (text("self/uid_map") ?? []).split(whereSeparator: { " \n".utf8.contains($0) })
        let isFirst = map.count == 3 && map[2].elementsEqual("4294967295".utf8)
        return isFirst ? nil : number("sys/kernel/overflowuid").flatMap(UInt32.init(exactly:))
    }
}

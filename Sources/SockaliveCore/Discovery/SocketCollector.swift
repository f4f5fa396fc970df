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

    private let search: ProcessSearch
    private let areCookiesGlobal: Bool
    private var sockets: [DiscoveredSocket] = []
    /// That of each socket.
    private var namespaces: [NetworkNamespace] = []
    /// Numbers in `sockets[..<indexedCount]`: most runs seek none of them by its inode.
    private var numbers = InodeIndex()
    private var indexedCount = 0
    /// Some socket was sought by its inode, or its row has no number: it may share its inode with others.
    private var seeksInodes = false
    /// The socket of each row that is the only one with its inode, by the row's number; -1: none yet.
    private var numbersByRow: [Int32]
    private var handles: [Int32: ProcessHandle] = [:]
    private var members: [Int32: MatchedProcess] = [:]
    private var hidden: [(process: MatchedProcess, error: Errno, rows: NamespaceRows)] = []
    private var ringOwners: [(process: MatchedProcess, files: RingOwner.Files, rows: NamespaceRows)] = []
    /// Sockets that some process holds, which need not match.
    private var heldElsewhere: Set<UInt64> = []
    private var threads: [UnansweredProcess] = []
    private let procfs: ProcFS

    /// - Parameters:
    ///   - areCookiesGlobal: no two sockets of two namespaces have one cookie (Linux 5.4).
    ///   - rowCount: rows are numbered from 0 up to this.
    init(procfs: ProcFS, search: ProcessSearch, areCookiesGlobal: Bool, rowCount: Int) {
        numbersByRow = Array(repeating: -1, count: rowCount)
        self.procfs = procfs
        self.search = search
        self.areCookiesGlobal = areCookiesGlobal
    }

    /// - Parameter count: so many sockets will come, as a rule.
    mutating func reserveCapacity(_ count: Int) {
        sockets.reserveCapacity(sockets.count + count)
        namespaces.reserveCapacity(sockets.count + count)
    }

    /// Only processes with a matching socket are read any further.
    ///
    /// - Parameter each: hands on each descriptor of the process with the row of its socket, and the row's number where
    ///   no other row has the same inode. By that number the socket is found at once.
    mutating func add(
        _ process: MatchedProcess, each: ((_ fd: Int32, _ found: FoundRow, _ number: Int?) -> Void) -> Void
    ) {
        var identity: ProcessIdentity?
        handles[process.pid] = process.handle
        members[process.pid] = process
        each { fd, found, number in
            let holder = SocketHolder(pid: process.pid, fd: fd)
            if number == nil {
                seeksInodes = true
                indexAll()
            }
            if let known = number.map(socketNumber) ?? index(of: found.row, in: found.namespace) {
                sockets[known].add(holder)
            } else {
                // Another holder of a socket that is known is asked for nothing.
                identity = identity ?? search.identity(of: process)
                guard let identity else { return }
                if let number { numbersByRow[number] = Int32(sockets.count) }
                add(identity, holder, found.row, found.namespace)
            }
        }
    }

    private func socketNumber(ofRow row: Int) -> Int? {
        let number = numbersByRow[row]
        return number < 0 ? nil : Int(number)
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
        if !ringOwners.isEmpty { indexAll() }
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

    private mutating func indexAll() {
        for number in indexedCount..<sockets.count { numbers.add(number, sockets[number].inode) }
        indexedCount = sockets.count
    }

    /// Of those in ``numbers``; nil if it is not known yet.
    @inline(never)
    private func index(of row: SocketRow, in namespace: NetworkNamespace) -> Int? {
        guard numbers.first(row.inode) != nil else { return nil }
        let key = key(of: row, in: namespace)
        return numbers.all(row.inode).first {
            self.key(of: sockets[$0].row, in: namespaces[$0]) == key
        }
    }

    private mutating func add(
        _ process: ProcessIdentity, _ holder: SocketHolder?, _ row: SocketRow, _ namespace: NetworkNamespace
    ) {
        sockets.append(
            DiscoveredSocket(process: process, holder: holder, row: row, networkNamespace: namespace.inode))
        namespaces.append(namespace)
    }

    /// The sockets by process and number; behind them those out of reach.
    ///
    /// - Parameter others: processes of which nobody knows whether they match.
    mutating func snapshot(processes: [Int32], unanswered others: [UnansweredProcess] = []) -> Snapshot {
        for index in sockets.indices where sockets[index].hasOtherHolders {
            sockets[index].holders.sort()
            // A socket of two processes was found with one of them; it is told with the first.
            if let first = sockets[index].holder?.pid, first != sockets[index].process.pid,
                let member = members[first], let identity = search.identity(of: member)
            {
                sockets[index].process = identity
            }
        }
        let held = sockets.indices
        if seeksInodes || !hidden.isEmpty || !ringOwners.isEmpty { indexAll() }
        let rings = ringSockets
        let unanswered = addHidden(besides: rings) + rings + threads + others
        for number in numbers.shared { sockets[number].sharesInode = true }
        // From here on the numbers are others.
        sortByHolder(held)
        return Snapshot(sockets: sockets, processes: processes, unanswered: unanswered, handles: handles)
    }

    /// They are in order, where all belong to one process.
    private mutating func sortByHolder(_ held: Range<Int>) {
        func isBefore(_ one: DiscoveredSocket, _ other: DiscoveredSocket) -> Bool {
            guard let first = one.holder, let second = other.holder else { return false }
            return first < second
        }
        if held.dropFirst().contains(where: { isBefore(sockets[$0], sockets[$0 - 1]) }) {
            sockets[held].sort(by: isBefore)
        }
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
                add(identity, nil, row, process.namespace)
                indexAll()
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

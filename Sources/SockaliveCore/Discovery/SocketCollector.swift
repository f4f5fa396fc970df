import SystemPackage

/// Gathers descriptors into sockets: however many descriptors and processes hold one, it is one.
struct SocketCollector {
    /// What makes a socket the same one. The inode alone does not: it has 32 bits and is given again after some hours
    /// of making sockets, and each network namespace is looked at by itself.
    private struct Key: Hashable {
        let inode: UInt64
        let cookie: UInt64?
        /// nil where the cookie tells sockets of all namespaces apart.
        let namespace: NetworkNamespace?
        /// Its two ends, where there is no cookie.
        let ends: [Endpoint]
    }

    private struct Entry {
        let process: ProcessIdentity
        let row: SocketRow
        let key: Key
        var holders: [SocketHolder]
    }

    private let finder: ProcessFinder
    private let areCookiesGlobal: Bool
    private var entries: [Entry] = []
    private var indexByKey: [Key: Int] = [:]
    /// How many sockets have an inode.
    private var countByInode: [UInt64: Int] = [:]
    private var handles: [Int32: ProcessHandle] = [:]
    private var hidden: [(process: MatchedProcess, rows: [UInt64: [SocketRow]])] = []
    private var denied: [Int32: Errno] = [:]

    /// - Parameter areCookiesGlobal: no two sockets of two namespaces have one cookie (Linux 5.4).
    init(finder: ProcessFinder, areCookiesGlobal: Bool) {
        self.finder = finder
        self.areCookiesGlobal = areCookiesGlobal
    }

    /// Only processes with a matching socket are read any further.
    mutating func add(_ process: MatchedProcess, _ descriptors: [(fd: Int32, row: SocketRow)]) {
        var identity: ProcessIdentity?
        handles[process.pid] = process.handle
        for (fd, row) in descriptors {
            let key = key(of: row, in: process.namespace)
            let holder = SocketHolder(pid: process.pid, fd: fd)
            if let index = indexByKey[key] {
                entries[index].holders.append(holder)
            } else {
                // Another holder of a socket that is known is asked for nothing.
                identity = identity ?? finder.identity(of: process)
                guard let identity else { return }
                add(Entry(process: identity, row: row, key: key, holders: [holder]))
            }
        }
    }

    mutating func deny(_ process: MatchedProcess, _ error: Errno, rows: [UInt64: [SocketRow]]) {
        denied[process.pid] = error
        hidden.append((process, rows))
    }

    private func key(of row: SocketRow, in namespace: NetworkNamespace) -> Key {
        let isGlobal = areCookiesGlobal && row.cookie != nil
        return Key(
            inode: row.inode, cookie: row.cookie, namespace: isGlobal ? nil : namespace,
            ends: row.cookie == nil ? [row.local, row.remote] : [])
    }

    private mutating func add(_ entry: Entry) {
        indexByKey[entry.key] = entries.count
        countByInode[entry.row.inode, default: 0] += 1
        entries.append(entry)
    }

    /// The sockets by process and number; behind them those out of reach.
    mutating func snapshot(processes: [Int32]) -> Snapshot {
        for index in entries.indices { entries[index].holders.sort() }
        entries.sort { $0.holders[0] < $1.holders[0] }
        addHidden()
        let sockets = entries.map {
            DiscoveredSocket(
                process: $0.process, holders: $0.holders, row: $0.row, sharesInode: countByInode[$0.row.inode] != 1)
        }
        return Snapshot(sockets: sockets, processes: processes, denied: denied, handles: handles)
    }

    /// A socket that nobody readable holds, and whose user is that of a process that may not be
    /// read, is most likely that process's: it is a candidate out of reach, not none.
    private mutating func addHidden() {
        for (process, rows) in hidden.sorted(by: { $0.process.pid < $1.process.pid }) {
            guard !rows.isEmpty, let identity = finder.identity(of: process) else { continue }
            for row in rows.values.joined().sorted(by: { $0.inode < $1.inode }) where row.uid == identity.uid {
                let key = key(of: row, in: process.namespace)
                if indexByKey[key] == nil { add(Entry(process: identity, row: row, key: key, holders: [])) }
            }
        }
    }
}

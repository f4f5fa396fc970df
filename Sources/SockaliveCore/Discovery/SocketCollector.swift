import SystemPackage

/// Gathers holdings into sockets: however many descriptors and processes hold one, it is one.
struct SocketCollector {
    private struct Entry {
        let process: ProcessInfo
        let row: SocketRow
        var holders: [SocketHolder]
    }

    private let finder: ProcessFinder
    private var entries: [Entry] = []
    private var indexByInode: [UInt64: Int] = [:]
    private var handles: [Int32: ProcessHandle] = [:]
    private var hidden: [(process: MatchedProcess, rows: [UInt64: SocketRow])] = []
    private var denied: [Int32: Errno] = [:]

    init(finder: ProcessFinder) {
        self.finder = finder
    }

    /// Only processes with a matching socket are read any further.
    mutating func add(_ process: MatchedProcess, _ holdings: [(fd: Int32, row: SocketRow)]) {
        guard let info = finder.info(of: process) else { return }
        handles[process.pid] = process.handle
        for (fd, row) in holdings {
            let holder = SocketHolder(pid: process.pid, fd: fd)
            if let index = indexByInode[row.inode] {
                entries[index].holders.append(holder)
            } else {
                indexByInode[row.inode] = entries.count
                entries.append(Entry(process: info, row: row, holders: [holder]))
            }
        }
    }

    mutating func deny(_ process: MatchedProcess, _ error: Errno, rows: [UInt64: SocketRow]) {
        denied[process.pid] = error
        hidden.append((process, rows))
    }

    /// The sockets by process and number; behind them those out of reach.
    mutating func snapshot(processes: [Int32]) -> Snapshot {
        for index in entries.indices { entries[index].holders.sort() }
        entries.sort { $0.holders[0] < $1.holders[0] }
        indexByInode = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($1.row.inode, $0) })
        addHidden()
        return Snapshot(
            sockets: entries.map { DiscoveredSocket(process: $0.process, holders: $0.holders, row: $0.row) },
            processes: processes, denied: denied, handles: handles)
    }

    /// A socket that nobody readable holds, and whose user is that of a process that may not be
    /// read, is most likely that process's: it is a candidate out of reach, not none.
    private mutating func addHidden() {
        for (process, rows) in hidden.sorted(by: { $0.process.pid < $1.process.pid }) {
            guard !rows.isEmpty, let info = finder.info(of: process) else { continue }
            for row in rows.values.sorted(by: { $0.inode < $1.inode })
            where row.uid == info.uid && indexByInode[row.inode] == nil {
                indexByInode[row.inode] = entries.count
                entries.append(Entry(process: info, row: row, holders: []))
            }
        }
    }
}

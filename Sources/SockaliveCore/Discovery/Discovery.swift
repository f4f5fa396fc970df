import SystemPackage

/// Finds the candidate sockets: selection in, snapshot out. It reads `/proc` and touches nothing.
public struct Discovery {
    private let procfs: ProcFS

    public init(procfs: ProcFS) {
        self.procfs = procfs
    }

    /// - Throws: `Errno` where `/proc` itself cannot be read.
    public func snapshot(of selection: Selection) throws -> Snapshot {
        let processes = try ProcessFinder(procfs: procfs, selection: selection.processes).processes()
        var collector = SocketCollector()
        var tables: [UInt64: [UInt64: SocketRow]] = [:]
        for process in processes {
            // Whose namespace may not be read may still show its table: it is read for itself then.
            let key = process.networkNamespace ?? ~UInt64(process.pid)
            let rows = tables[key] ?? socketRows(seenBy: process.pid, selection: selection.sockets)
            tables[key] = rows
            if !rows.isEmpty { collect(process, rows, into: &collector) }
        }
        return Snapshot(sockets: collector.sockets(), processes: processes, denied: collector.denied)
    }

    /// Rows of the process's own network namespace by inode. A missing file means that this kernel
    /// lacks the address family, or that the process is gone.
    private func socketRows(seenBy pid: Int32, selection: SocketSelection) -> [UInt64: SocketRow] {
        var rows: [UInt64: SocketRow] = [:]
        for (file, family) in [("tcp", IPAddress.Family.ipv4), ("tcp6", .ipv6)] {
            let reader = SocketTableReader(family: family, accepts: selection.accepts(state:localPort:remotePort:))
            let found = (try? procfs.read("\(pid)/net/\(file)") { reader.rows(in: $0) }) ?? []
            // Inode 0: a connection that no process has accepted yet.
            for row in found where row.inode != 0 && selection.accepts(row) { rows[row.inode] = row }
        }
        return rows
    }

    private func collect(_ process: ProcessInfo, _ rows: [UInt64: SocketRow], into collector: inout SocketCollector) {
        do {
            let (folder, numbers) = try descriptors(of: process.pid)
            var holdings: [(fd: Int32, row: SocketRow)] = []
            for fd in numbers {
                guard let inode = try? procfs.link("\(folder)/\(fd)").inode(ofKind: "socket"),
                    let row = rows[inode]
                else { continue }
                holdings.append((fd, row))
            }
            guard isUnchanged(process) else { return }
            for holding in holdings { collector.add(process, fd: holding.fd, row: holding.row) }
        } catch let error as Errno where error.isPermission {
            collector.deny(process, error, rows: rows)
        } catch {
            // The process is gone.
        }
    }

    /// The process's descriptors and the folder that shows them. A main thread that has exited while
    /// others run on has none (its `files` is gone, kernel/exit.c); another thread's are the process's.
    private func descriptors(of pid: Int32) throws -> (folder: String, numbers: [Int32]) {
        let own = try procfs.numbers(in: "\(pid)/fd")
        guard own.isEmpty else { return ("\(pid)/fd", own) }
        for thread in try procfs.numbers(in: "\(pid)/task") {
            let folder = "\(pid)/task/\(thread)/fd"
            let numbers = try procfs.numbers(in: folder)
            if !numbers.isEmpty { return (folder, numbers) }
        }
        return ("\(pid)/fd", [])
    }

    /// Between name and descriptors the PID may have been recycled, or another program executed.
    private func isUnchanged(_ process: ProcessInfo) -> Bool {
        let now = try? procfs.read("\(process.pid)/stat") { ProcessStat($0) }
        return now.map { $0.startTime == process.startTime && $0.name == process.name } ?? false
    }
}

/// Gathers holdings into sockets, in the order in which they were found.
private struct SocketCollector {
    private struct Entry {
        let process: ProcessInfo
        let row: SocketRow
        var holders: [SocketHolder]
    }

    private var entries: [Entry] = []
    private var indexByInode: [UInt64: Int] = [:]
    private var hidden: [(process: ProcessInfo, rows: [UInt64: SocketRow])] = []
    private(set) var denied: [Int32: Errno] = [:]

    mutating func add(_ process: ProcessInfo, fd: Int32, row: SocketRow) {
        let holder = SocketHolder(pid: process.pid, fd: fd)
        if let index = indexByInode[row.inode] {
            entries[index].holders.append(holder)
        } else {
            indexByInode[row.inode] = entries.count
            entries.append(Entry(process: process, row: row, holders: [holder]))
        }
    }

    mutating func deny(_ process: ProcessInfo, _ error: Errno, rows: [UInt64: SocketRow]) {
        denied[process.pid] = error
        hidden.append((process, rows))
    }

    /// A socket that nobody readable holds, and whose user is that of a process that may not be
    /// read, is most likely that process's: it is a candidate out of reach, not none.
    mutating func sockets() -> [DiscoveredSocket] {
        for (process, rows) in hidden {
            for row in rows.values.sorted(by: { $0.inode < $1.inode })
            where row.uid == process.uid && indexByInode[row.inode] == nil {
                indexByInode[row.inode] = entries.count
                entries.append(Entry(process: process, row: row, holders: []))
            }
        }
        return entries.map { DiscoveredSocket(process: $0.process, holders: $0.holders, row: $0.row) }
    }
}

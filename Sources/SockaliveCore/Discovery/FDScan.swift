import CSockalive
import SystemPackage

/// The sockets that processes hold.
struct FDScan {
    struct Entry {
        let process: ProcessHandle
        let descriptors: [SocketDescriptor]
        /// Some are not in the main thread's table, the only one that pidfd_getfd(2) looks into.
        let needsThreads: Bool
    }

    /// Processes that hold sockets.
    private(set) var entries: [Entry] = []
    /// Processes whose descriptors may not be read.
    private(set) var denied: [(process: ProcessHandle, error: Errno)] = []

    private static let maxThreads = 4096
    /// Nobody has so many; a process that wants to be slow to look at might.
    private static let maxTables = 64

    /// - Parameters:
    ///   - wanted: only these sockets; nil is all of them.
    ///   - stopReason: asked before each process and each of its threads.
    init(
        procfs: ProcFS, processes: [ProcessHandle], wanted: [UInt64: [SocketRow]]?, stopReason: () -> StopReason?
    ) throws(StopReason) {
        for process in processes {
            if let reason = stopReason() { throw reason }
            do {
                var (sockets, needsThreads) = try Self.sockets(of: process.pid, procfs, stopReason)
                if let wanted { sockets.removeAll { wanted[$0.inode] == nil } }
                guard !sockets.isEmpty else { continue }
                entries.append(Entry(process: process, descriptors: sockets, needsThreads: needsThreads))
            } catch let error as Errno where error.isPermission {
                denied.append((process, error))
            } catch {
                // The process is gone.
            }
        }
    }

    /// As a rule all threads share one table, and the main thread's is read. One that has exited while others run
    /// on has none (its `files` is gone, kernel/exit.c); and a thread may have one of its own (unshare(2)).
    private static func sockets(
        of pid: Int32, _ procfs: ProcFS, _ stopReason: () -> StopReason?
    ) throws -> ([SocketDescriptor], needsThreads: Bool) {
        WorkerProgress.enter(.descriptors, pid)
        let main = try procfs.sockets(in: "\(pid)/fd")
        var descriptors = main ?? []
        var needsThreads = false
        guard main == nil || procfs.threadCount(of: pid) > 1 else { return (descriptors, needsThreads) }
        var known = Set(descriptors)
        // One thread of each table that was read.
        var owners = main == nil ? [] : [pid]
        for thread in try procfs.numbers(in: "\(pid)/task").prefix(maxThreads) where thread != pid {
            // Stop here; the caller's next check throws the reason.
            if stopReason() != nil { break }
            WorkerProgress.enter(.threads, pid)
            if owners.contains(where: { sockalive_shares_descriptors($0, thread) != 0 }) { continue }
            WorkerProgress.enter(.descriptors, pid)
            guard let own = try? procfs.sockets(in: "\(pid)/task/\(thread)/fd") else { continue }
            let added = own.filter { known.insert($0).inserted }
            descriptors += added
            needsThreads = needsThreads || !added.isEmpty
            owners.append(thread)
            if owners.count == maxTables { break }
        }
        return (descriptors, needsThreads)
    }
}

/// Asks each socket itself, through a duplicate that is closed at once. No table is read; the timer, which no
/// getsockopt tells, comes from sock_diag, asked for this one connection.
struct BorrowedRows {
    let tables: SocketTables
    let namespace: NetworkNamespace

    /// The rows by inode, or nil where borrowing is not possible: then a table has to answer.
    ///
    /// Each descriptor is asked, also where another one has its inode: they may be two sockets.
    func rows(of entries: [FDScan.Entry]) -> [UInt64: [SocketRow]]? {
        guard !entries.contains(where: \.needsThreads) else { return nil }
        var rows: [UInt64: [SocketRow]] = [:]
        for entry in entries {
            guard let owner = entry.process.descriptor else { return nil }
            for descriptor in entry.descriptors {
                do {
                    WorkerProgress.enter(.borrow, entry.process.pid, inode: descriptor.inode)
                    let identity = SocketIdentity(inode: descriptor.inode)
                    let socket = try BorrowedSocket(pidfd: owner, fd: descriptor.fd, identity: identity)
                    let known = rows[descriptor.inode] ?? []
                    if let cookie = socket.cookie, known.contains(where: { $0.cookie == cookie }) { continue }
                    guard let row = socket.row(), tables.selection.accepts(wholly: row) else { continue }
                    if known.contains(where: { $0.isSameConnection(as: row) }) { continue }
                    rows[row.inode, default: []].append(row)
                } catch Errno.staleNFSFileHandle, Errno.badFileDescriptor, Errno.noSuchProcess {
                    // Closed since.
                } catch {
                    return nil
                }
            }
        }
        return withTimers(rows, seenBy: entries.map(\.process.pid))
    }

    private func withTimers(
        _ rows: [UInt64: [SocketRow]], seenBy members: [Int32]
    ) -> [UInt64: [SocketRow]] {
        guard !rows.isEmpty else { return rows }
        WorkerProgress.enter(.socketTable)
        guard var diag = try? tables.diagSocket(in: namespace, seenBy: members) else { return rows }
        return rows.mapValues { rows in
            rows.map { row in
                guard row.state == .established,
                    var exact = try? diag.row(family: row.family, local: row.local, remote: row.remote),
                    exact.inode == row.inode, exact.state == .established
                else { return row }
                // Of an MPTCP socket the table shows a subflow, whose cookie is another.
                exact.cookie = row.cookie
                return exact
            }
        }
    }
}

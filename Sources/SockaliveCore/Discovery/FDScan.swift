import CSockalive
import SystemPackage

/// The sockets that the members of one namespace hold.
struct FDScan {
    private(set) var descriptors: [(process: MatchedProcess, descriptors: [SocketDescriptor])] = []
    /// Processes whose descriptors may not be read.
    private(set) var denied: [(process: MatchedProcess, error: Errno)] = []
    private(set) var inodes: Set<UInt64> = []
    /// Some are not in the main thread's table, the only one that pidfd_getfd(2) looks into.
    private(set) var needsThreads = false

    /// How many descriptors that are.
    var count: Int { descriptors.reduce(0) { $0 + $1.descriptors.count } }

    private static let maxThreads = 4096
    /// Nobody has so many; a process that wants to be slow to look at might.
    private static let maxTables = 64

    /// - Parameters:
    ///   - wanted: only these sockets; nil is all of them.
    ///   - stopReason: asked before each process and each of its threads.
    init(
        procfs: ProcFS, members: [MatchedProcess], wanted: [UInt64: [SocketRow]]?, stopReason: () -> StopReason?
    ) throws(StopReason) {
        for process in members {
            if let reason = stopReason() { throw reason }
            do {
                var sockets = try sockets(of: process.pid, procfs, stopReason)
                if let wanted { sockets.removeAll { wanted[$0.inode] == nil } }
                guard !sockets.isEmpty else { continue }
                descriptors.append((process, sockets))
                for socket in sockets { inodes.insert(socket.inode) }
            } catch let error as Errno where error.isPermission {
                denied.append((process, error))
            } catch {
                // The process is gone.
            }
        }
    }

    /// As a rule all threads share one table, and the main thread's is read. One that has exited while others run
    /// on has none (its `files` is gone, kernel/exit.c); and a thread may have one of its own (unshare(2)).
    private mutating func sockets(
        of pid: Int32, _ procfs: ProcFS, _ stopReason: () -> StopReason?
    ) throws -> [SocketDescriptor] {
        let main = try procfs.sockets(in: "\(pid)/fd")
        var descriptors = main ?? []
        guard main == nil || procfs.threadCount(of: pid) > 1 else { return descriptors }
        var known = Set(descriptors)
        // One thread of each table that was read.
        var owners = main == nil ? [] : [pid]
        for thread in try procfs.numbers(in: "\(pid)/task").prefix(Self.maxThreads) where thread != pid {
            // Stop here; the next question of the caller gets the reason.
            if stopReason() != nil { break }
            if owners.contains(where: { sockalive_shares_descriptors($0, thread) != 0 }) { continue }
            guard let own = try? procfs.sockets(in: "\(pid)/task/\(thread)/fd") else { continue }
            let added = own.filter { known.insert($0).inserted }
            descriptors += added
            needsThreads = needsThreads || !added.isEmpty
            owners.append(thread)
            if owners.count == Self.maxTables { break }
        }
        return descriptors
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
    func rows(of scan: FDScan) -> [UInt64: [SocketRow]]? {
        guard !scan.needsThreads else { return nil }
        var rows: [UInt64: [SocketRow]] = [:]
        for (process, descriptors) in scan.descriptors {
            guard let owner = process.handle.descriptor else { return nil }
            for descriptor in descriptors {
                do {
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
        return withTimers(rows, seenBy: scan.descriptors.map(\.process))
    }

    private func withTimers(
        _ rows: [UInt64: [SocketRow]], seenBy members: [MatchedProcess]
    ) -> [UInt64: [SocketRow]] {
        guard !rows.isEmpty, var diag = try? tables.diagSocket(in: namespace, seenBy: members) else { return rows }
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

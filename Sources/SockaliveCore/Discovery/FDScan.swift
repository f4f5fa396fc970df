import CSockalive
import SystemPackage

/// The sockets that processes hold.
struct FDScan {
    struct Entry {
        let process: ProcessHandle
        let descriptors: [SocketDescriptor]
        /// Some are not in the main thread's table, the only one that pidfd_getfd(2) looks into.
        let needsThreads: Bool

        /// nil if nothing is left.
        func without(_ isKnown: (UInt64) -> Bool) -> Entry? {
            let rest = descriptors.filter { !isKnown($0.inode) }
            return rest.isEmpty ? nil : Entry(process: process, descriptors: rest, needsThreads: needsThreads)
        }
    }

    /// Processes that hold sockets.
    private(set) var entries: [Entry] = []
    /// Processes whose descriptors may not be read.
    private(set) var denied: [(process: ProcessHandle, error: Errno)] = []
    /// Processes with an io_uring, which may hold sockets that are in no descriptor table.
    private(set) var ringOwners: [ProcessHandle] = []

    private static let maxThreads = 4096
    /// Nobody has so many; a process that wants to be slow to look at might.
    private static let maxTables = 64

    /// - Parameter stopReason: asked before each process and each of its threads.
    init(
        procfs: ProcFS, processes: [ProcessHandle], stopReason: () -> StopReason?
    ) throws(StopReason) {
        for process in processes {
            if let reason = stopReason() { throw reason }
            do {
                let (sockets, needsThreads, hasRing) = try Self.sockets(of: process.pid, procfs, stopReason)
                if hasRing { ringOwners.append(process) }
                guard !sockets.isEmpty else { continue }
                entries.append(Entry(process: process, descriptors: sockets, needsThreads: needsThreads))
            } catch let error as Errno where error != .noSuchFileOrDirectory && error != .noSuchProcess {
                // Also EMFILE, for instance: an error is never the answer that there is no socket.
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
    ) throws -> ([SocketDescriptor], needsThreads: Bool, hasRing: Bool) {
        WorkerProgress.enter(.descriptors, pid)
        let main = try procfs.descriptors(in: "\(pid)/fd")
        var descriptors = main?.sockets ?? []
        var needsThreads = false
        var hasRing = main?.rings.isEmpty == false
        guard main == nil || procfs.threadCount(of: pid) > 1 else { return (descriptors, needsThreads, hasRing) }
        var known = Set(descriptors)
        // One thread of each table that was read.
        var owners = main == nil ? [] : [pid]
        for thread in try procfs.numbers(in: "\(pid)/task").prefix(maxThreads) where thread != pid {
            // Stop here; the caller's next check throws the reason.
            if stopReason() != nil { break }
            WorkerProgress.enter(.threads, pid)
            if owners.contains(where: { sockalive_shares_descriptors($0, thread) != 0 }) { continue }
            WorkerProgress.enter(.descriptors, pid)
            guard let own = try? procfs.descriptors(in: "\(pid)/task/\(thread)/fd") else { continue }
            hasRing = hasRing || !own.rings.isEmpty
            let added = own.sockets.filter { known.insert($0).inserted }
            descriptors += added
            needsThreads = needsThreads || !added.isEmpty
            owners.append(thread)
            if owners.count == maxTables { break }
        }
        return (descriptors, needsThreads, hasRing)
    }
}

/// A row of a socket table, with the network namespace that it is in.
struct FoundRow {
    var row: SocketRow
    /// That of the process, as a rule: a process may hold sockets of several namespaces.
    let namespace: NetworkNamespace
}

/// Asks each socket itself, through a duplicate that is closed at once. No table is read; the timer, which no
/// getsockopt tells, comes from sock_diag, asked for this one connection.
struct BorrowedRows {
    let tables: SocketTables
    let namespace: NetworkNamespace

    /// The rows by inode, or nil where borrowing is not possible: then a table has to answer.
    ///
    /// Each descriptor is asked, also where another one has its inode: they may be two sockets.
    func rows(of entries: [FDScan.Entry]) -> [UInt64: [FoundRow]]? {
        guard !entries.contains(where: \.needsThreads) else { return nil }
        var rows: [UInt64: [FoundRow]] = [:]
        var diag = TimerSource(tables: tables, namespace: namespace, members: entries.map(\.process.pid))
        for entry in entries {
            guard let owner = entry.process.descriptor else { return nil }
            for descriptor in entry.descriptors {
                do {
                    WorkerProgress.enter(.borrow, entry.process.pid, inode: descriptor.inode)
                    let identity = SocketIdentity(inode: descriptor.inode)
                    let socket = try BorrowedSocket(pidfd: owner, fd: descriptor.fd, identity: identity)
                    let known = rows[descriptor.inode] ?? []
                    if let cookie = socket.cookie, known.contains(where: { $0.row.cookie == cookie }) { continue }
                    guard let row = socket.row(), tables.selection.accepts(wholly: row) else { continue }
                    if known.contains(where: { $0.row.isSameConnection(as: row) }) { continue }
                    rows[row.inode, default: []].append(diag.completed(row, socket))
                } catch Errno.staleNFSFileHandle, Errno.badFileDescriptor, Errno.noSuchProcess {
                    // Closed since, or a number that leads to no open socket (O_PATH).
                } catch {
                    return nil
                }
            }
        }
        return rows
    }

    /// The timers of the sockets of one namespace. It is entered for the first socket, and not without need.
    private struct TimerSource: ~Copyable {
        private let tables: SocketTables
        private let namespace: NetworkNamespace
        private let members: [Int32]
        private var diag: SockDiagSocket?
        private var isMissing = false

        init(tables: SocketTables, namespace: NetworkNamespace, members: [Int32]) {
            self.tables = tables
            self.namespace = namespace
            self.members = members
        }

        /// The row with its timer. A socket that the namespace does not know is in another one, which it tells itself.
        mutating func completed(_ row: SocketRow, _ socket: borrowing BorrowedSocket) -> FoundRow {
            guard row.state.hasPeer else { return FoundRow(row: row, namespace: namespace) }
            WorkerProgress.enter(next: .socketTable)
            if diag == nil && !isMissing {
                diag = try? tables.diagSocket(in: namespace, seenBy: members)
                isMissing = diag == nil
            }
            guard !isMissing else { return FoundRow(row: row, namespace: namespace) }
            if var exact = try? diag?.row(
                family: row.family, local: row.local, remote: row.remote, interface: row.interface),
                exact.inode == row.inode, exact.state.hasPeer
            {
                // Of an MPTCP socket the table shows a subflow, whose cookie is another.
                exact.cookie = row.cookie
                return FoundRow(row: exact, namespace: namespace)
            }
            let own = socket.networkNamespace.map { NetworkNamespace.inode($0) }
            return FoundRow(row: row, namespace: own ?? namespace)
        }
    }
}

import CSockalive
import Glibc
import SystemPackage

/// Where the socket table is read.
package enum SocketSource: String, CaseIterable, Sendable {
    /// The cheapest that works here, with nothing left out.
    case auto
    /// The text of `/proc/PID/net/tcp` and `tcp6`.
    case procfs
    /// The kernel's NETLINK_SOCK_DIAG.
    case diag
}

/// Why the sockets could not be looked for in the way that was asked for.
package struct SourceFailure: Error, Sendable {
    package let error: Errno
    /// The text of the socket table failed, rather than sock_diag.
    var isOfText = false

    /// Rights are missing, rather than the kernel's help.
    package var isPermission: Bool { error.isPermission }

    package var line: String {
        if isOfText {
            return isPermission
                ? "/proc/PID/net/tcp may not be read (\(error.name)): run as root, or use --source diag"
                : "/proc/PID/net/tcp cannot be read (\(error)): run again, or use --source diag"
        }
        return isPermission
            ? "sock_diag in another network namespace is not permitted (\(error.name)): "
                + "run as root or with CAP_SYS_ADMIN, or use --source auto"
            : "this kernel does not answer sock_diag (\(error.name)): load the module tcp_diag, or use --source auto"
    }
}

/// Reads the socket table of a network namespace.
struct SocketTables {
    let procfs: ProcFS
    let source: SocketSource
    let selection: SocketSelection

    /// The rows of a network namespace.
    ///
    /// - Parameters:
    ///   - members: processes of the namespace; the first that is still there lends its view of it.
    ///   - inodes: only these sockets; nil is all of them.
    func rows(
        of namespace: NetworkNamespace, seenBy members: [ProcessHandle], inodes: Set<UInt64>?
    ) throws(SourceFailure) -> FoundRows {
        if source == .diag || (source == .auto && procfs.isOwn) {
            do {
                return try diagRows(of: namespace, seenBy: members, inodes: inodes)
            } catch {
                if source == .diag { throw SourceFailure(error: error) }
            }
        }
        return try procfsRows(of: namespace, seenBy: members, inodes: inodes)
    }

    /// The same for a namespace that no process is in, which a mount keeps (ip-netns(8)).
    ///
    /// - Parameter file: a descriptor of the namespace.
    func rows(of namespace: NetworkNamespace, mounted file: Int32, inodes: Set<UInt64>) throws -> FoundRows {
        WorkerProgress.enter(.socketTable)
        if source != .procfs, let socket = try? SockDiagSocket(namespace: file) {
            return try diagRows(socket, of: namespace, inodes: inodes)
        }
        return try onOwnThread {
            let status = sockalive_enter_network(file)
            guard status >= 0 else { throw Errno(rawValue: -status) }
            return FoundRows(try textRows("thread-self", of: namespace, inodes: inodes) ?? [])
        }
    }

    private func diagRows(
        of namespace: NetworkNamespace, seenBy members: [ProcessHandle], inodes: Set<UInt64>?
    ) throws(Errno) -> FoundRows {
        WorkerProgress.enter(.socketTable)
        return try diagRows(
            try diagSocket(in: namespace, seenBy: members.map(\.pid)), of: namespace, inodes: inodes)
    }

    /// The rows of this process's own network namespace by sock_diag, without a word of its progress; nil where there is
    /// no answer, or too long a one.
    func rowsHere(_ own: NetworkNamespace) -> FoundRows? {
        guard source != .procfs, procfs.isOwn, let socket = try? SockDiagSocket() else { return nil }
        let rows = try? diagRows(socket, of: own, inodes: nil, limit: Self.maxReserved)
        return rows.flatMap { $0.all.count < Self.maxReserved ? $0 : nil }
    }

    /// A process may hold a million sockets of which none is meant.
    private static let maxReserved = 1 << 15

    private func diagRows(
        _ socket: consuming SockDiagSocket, of namespace: NetworkNamespace, inodes: Set<UInt64>?,
        limit: Int = .max
    ) throws(Errno) -> FoundRows {
        var rows = FoundRows()
        // Most of them have other ports, where few are many.
        rows.reserveCapacity(min(inodes?.count ?? limit, Self.maxReserved))
        let interfaces = socket.interfaces
        try socket.dump(states: selection.states, ports: selection.ports) { message in
            // Inode 0: no process has accepted the connection yet, or its last owner has closed it (FIN_WAIT2).
            guard message.inode != 0, rows.all.count < limit, inodes?.contains(message.inode) ?? true,
                let state = message.state,
                selection.accepts(state: state, localPort: message.localPort, remotePort: message.remotePort),
                let row = message.row.map(interfaces.naming), selection.accepts(row)
            else { return }
            rows.add(FoundRow(row: row, namespace: namespace))
        }
        return rows
    }

    func diagSocket(in namespace: NetworkNamespace, seenBy members: [Int32]) throws(Errno) -> SockDiagSocket {
        try NetworkNamespaces(procfs: procfs).diagSocket(in: namespace, seenBy: members)
    }

    private func procfsRows(
        of namespace: NetworkNamespace, seenBy members: [ProcessHandle], inodes: Set<UInt64>?
    ) throws(SourceFailure) -> FoundRows {
        var rows = FoundRows()
        for member in members {
            WorkerProgress.enter(.socketTable, member.pid)
            do {
                let read = try procfs.inNetworkFolder(of: member.pid) { folder in
                    try textRows(folder, of: namespace, inodes: inodes)
                }
                // Another process of the namespace shows the same table.
                guard let read else { continue }
                for row in read { rows.add(row) }
            } catch {
                // What cannot be read is not "no".
                if member.isAlive(procfs) { throw SourceFailure(error: error as? Errno ?? .ioError, isOfText: true) }
            }
            // A process that ended meanwhile may have shown an empty table, or half of one.
            if member.isAlive(procfs) { return rows }
        }
        return rows
    }

    /// A missing file means that this kernel lacks the address family, or that the process, or the thread, is gone.
    ///
    /// - Returns: nil if a thread has ended before both files were open.
    private func textRows(
        _ process: String, of namespace: NetworkNamespace, inodes: Set<UInt64>?
    ) throws -> [FoundRow]? {
        var files: [(file: Int32, family: IPAddress.Family)] = []
        defer { for (file, _) in files { close(file) } }
        var isMissing = false
        // Once it is open, a file stays with its namespace, whatever becomes of the thread.
        for (name, family) in [("tcp", IPAddress.Family.ipv4), ("tcp6", .ipv6)] {
            do throws(Errno) {
                files.append((try procfs.open("\(process)/net/\(name)"), family))
            } catch {
                guard error == .noSuchFileOrDirectory || error == .noSuchProcess else { throw error }
                isMissing = true
            }
        }
        let isCutOff = isMissing && procfs.hasEnded(process)
        var rows: [FoundRow] = []
        for (file, family) in files {
            let reader = SocketTableReader(family: family, accepts: selection.accepts(state:localPort:remotePort:))
            let found = try procfs.read(file) { reader.rows(in: $0) }
            for row in found where row.inode != 0 && selection.accepts(row) {
                guard inodes?.contains(row.inode) ?? true else { continue }
                rows.append(FoundRow(row: row, namespace: namespace))
            }
        }
        return isCutOff ? nil : rows
    }
}

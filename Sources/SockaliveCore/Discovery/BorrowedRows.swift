import SystemPackage

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

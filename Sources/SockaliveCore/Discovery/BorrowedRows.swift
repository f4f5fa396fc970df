import SystemPackage

/// Asks each socket itself, through a duplicate that is closed at once. No table is read; the timer, which no
/// getsockopt tells, comes from sock_diag, asked for this one connection.
struct BorrowedRows {
    let tables: SocketTables
    let namespace: NetworkNamespace

    /// The rows by inode, or nil where borrowing is not possible: then a table has to answer.
    func rows(of walk: DescriptorWalk) -> [UInt64: SocketRow]? {
        guard !walk.needsThreads else { return nil }
        var rows: [UInt64: SocketRow] = [:]
        for (process, holdings) in walk.holdings {
            guard let owner = process.handle.descriptor else { return nil }
            for holding in holdings where rows[holding.inode] == nil {
                do {
                    let socket = try BorrowedSocket(pidfd: owner, fd: holding.fd, inode: holding.inode)
                    guard let row = socket.row(), tables.selection.accepts(wholly: row) else { continue }
                    rows[row.inode] = row
                } catch Errno.staleNFSFileHandle, Errno.badFileDescriptor, Errno.noSuchProcess {
                    // Closed since.
                } catch {
                    return nil
                }
            }
        }
        return withTimers(rows, seenBy: walk.holdings.map(\.process))
    }

    private func withTimers(_ rows: [UInt64: SocketRow], seenBy members: [MatchedProcess]) -> [UInt64: SocketRow] {
        guard !rows.isEmpty, var diag = try? tables.diagSocket(in: namespace, seenBy: members) else { return rows }
        return rows.mapValues { row in
            guard row.state == .established,
                let exact = try? diag.row(family: row.family, local: row.local, remote: row.remote),
                exact.inode == row.inode, exact.state == .established
            else { return row }
            return exact
        }
    }
}

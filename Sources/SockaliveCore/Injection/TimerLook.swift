import Glibc

/// Looks again at the timers of sockets that are remembered. While data is on its way, the retransmission timer hides that
/// of keepalive: as a rule for some milliseconds, until the acknowledgement comes. That costs less than a stop.
struct TimerLook {
    let procfs: ProcFS
    let memory: SocketMemory

    private static let rounds = 5
    private static let pause: useconds_t = 20_000
    private static let maxSockets = 500

    /// - Parameter stopReason: asked between two looks.
    func refreshed(_ candidates: [AssignedSocket], stopReason: () -> StopReason?) -> [AssignedSocket] {
        var waiting = candidates.indices.filter { isHidden(candidates[$0].socket) }
        guard !waiting.isEmpty, waiting.count <= Self.maxSockets else { return candidates }
        var refreshed = candidates
        for _ in 0..<Self.rounds where !waiting.isEmpty && stopReason() == nil {
            WorkerProgress.enter(.waiting)
            usleep(Self.pause)
            waiting.removeAll { index in
                guard let row = row(of: candidates[index].socket) else { return true }
                refreshed[index].socket.row = row
                return !row.isHiddenForNow
            }
        }
        return refreshed
    }

    private func isHidden(_ socket: DiscoveredSocket) -> Bool {
        socket.row.isHiddenForNow && memory.entry(of: socket) != nil
    }

    /// nil if it is gone, or the kernel does not tell.
    private func row(of socket: DiscoveredSocket) -> SocketRow? {
        WorkerProgress.enter(.socketTable, socket.process.pid, inode: socket.inode)
        guard let namespace = socket.networkNamespace,
            var diag = try? NetworkNamespaces(procfs: procfs).diagSocket(
                in: .inode(namespace), seenBy: socket.holders.map(\.pid)),
            let row = try? diag.row(
                family: socket.row.family, local: socket.row.local, remote: socket.row.remote,
                interface: socket.row.interface)
        else { return nil }
        return row.inode == socket.inode && row.cookie == socket.cookie ? row : nil
    }
}

extension SocketRow {
    /// Not for long: a window that stays closed hides it for longer.
    fileprivate var isHiddenForNow: Bool {
        if case .retransmission = timer { state.hasPeer } else { false }
    }
}

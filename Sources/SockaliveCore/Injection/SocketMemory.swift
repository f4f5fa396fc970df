/// What was read and set inside targets, for the runs that come later. Pure.
///
/// Only the socket itself tells interval, count and user timeout (getsockopt(2)), and on an old kernel a target is
/// stopped to ask it. The socket tables tell for nothing whether keepalive is on, and when it fires. As long as that fits
/// what is remembered, no target is stopped.
package struct SocketMemory: Equatable, Sendable {
    /// Inodes are 32-bit numbers, and before Linux 5.4 cookies are counted in each network namespace anew. So all of it
    /// together is the socket.
    struct Key: Hashable, Sendable {
        let networkNamespace: UInt64
        let inode: UInt64
        let local, remote: Endpoint

        init(networkNamespace: UInt64, inode: UInt64, local: Endpoint, remote: Endpoint) {
            self.networkNamespace = networkNamespace
            self.inode = inode
            self.local = local
            self.remote = remote
        }

        /// nil if its network namespace is not known.
        init?(_ socket: DiscoveredSocket) {
            guard let namespace = socket.networkNamespace, !socket.sharesInode else { return nil }
            self.init(
                networkNamespace: namespace, inode: socket.inode, local: socket.row.local, remote: socket.row.remote)
        }
    }

    struct Entry: Equatable, Sendable {
        /// nil if the source of the row did not tell it.
        let cookie: UInt64?
        let settings: KeepaliveSettings
        /// When they were read inside the target, milliseconds since boot.
        let readAt: Int
        /// A time at or before the last activity that the last look saw, milliseconds since boot.
        var activeAt: Int
    }

    var entries: [Key: Entry] = [:]

    /// Interval, count and user timeout may have been changed by the owner, and no table tells them: once a day the
    /// socket itself is asked.
    static let maxAge = 24 * 3600 * 1000
    static let capacity = 32_768

    package init() {}

    package var isEmpty: Bool { entries.isEmpty }

    func entry(of socket: DiscoveredSocket) -> Entry? {
        guard !entries.isEmpty, let entry = Key(socket).flatMap({ entries[$0] }) else { return nil }
        if let known = entry.cookie, known != socket.cookie { return nil }
        return entry
    }

    mutating func set(_ entry: Entry, for key: Key) {
        if entries.count < Self.capacity || entries[key] != nil { entries[key] = entry }
    }

    /// Sockets that are closed are forgotten first, or their owner would leave no room for others.
    private mutating func makeRoom(for results: [SocketResult]) {
        guard entries.count + results.count > Self.capacity else { return }
        let seen = Set(results.compactMap { Key($0.socket) })
        entries = entries.filter { seen.contains($0.key) }
    }

    /// What the next run is told, by what came of this one.
    ///
    /// - Parameters:
    ///   - start: a time before the sockets were found, milliseconds since boot. So what is stored as the last activity
    ///     is never later than that.
    ///   - now: milliseconds since boot.
    ///   - defaults: what sockets of this process's network namespace have that never were told otherwise; nil if unknown.
    package func updated(
        _ results: [SocketResult], start: Int, now: Int = bootMilliseconds, defaults: @autoclosure () -> Defaults?
    ) -> SocketMemory {
        // By pidfd there is nothing to remember.
        if isEmpty && !results.indices.contains(where: { results[$0].method == .ptrace }) { return self }
        let defaults = defaults()
        var updated = self
        updated.entries = entries.filter { (0...Self.maxAge).contains(now - $0.value.readAt) }
        updated.makeRoom(for: results)
        for result in results {
            guard let key = Key(result.socket) else { continue }
            let idle = result.idleSeconds.map { Int(($0 * 1000).rounded(.up)) }
            switch result.settingsSource {
            case .memory:
                guard let idle, let entry = updated.entries[key] else { continue }
                updated.entries[key]?.activeAt = max(entry.activeAt, start - idle)
            case .oldMemory, .table: continue
            case .socket:
                updated.entries[key] = nil
                guard result.isWorthRemembering, let settings = result.after, let idle,
                    result.hasOwnSettings(defaults)
                else { continue }
                let entry = Entry(
                    cookie: result.socket.cookie, settings: settings, readAt: start, activeAt: start - idle)
                updated.set(entry, for: key)
            }
        }
        return updated
    }

    /// Whether another memory, from which this one came, is as good: no socket would be asked sooner by much.
    package func isAlmost(_ other: SocketMemory) -> Bool {
        entries.count == other.entries.count
            && entries.allSatisfy { key, entry in
                guard var known = other.entries[key], abs(entry.activeAt - known.activeAt) < 60_000 else {
                    return false
                }
                known.activeAt = entry.activeAt
                return known == entry
            }
    }
}

extension SocketResult {
    /// By pidfd nobody is stopped. A listener has no timer that could be looked at. A probe that was killed leaves values
    /// that are not to stay.
    fileprivate var isWorthRemembering: Bool {
        method == .ptrace && failure == nil && socket.row.state.hasPeer && !subflowDiffers
            && after?.hasProbeMarker == false
    }
}

extension SocketMemory {
    /// The sysctls of a network namespace. A socket that has no value of its own follows them as they change, and its
    /// timer is not armed anew (include/net/tcp.h, keepalive_time_when, keepalive_intvl_when, keepalive_probes).
    package struct Defaults: Sendable {
        let networkNamespace: UInt64
        let idle, interval, count: Int32

        init(networkNamespace: UInt64, idle: Int32, interval: Int32, count: Int32) {
            self.networkNamespace = networkNamespace
            self.idle = idle
            self.interval = interval
            self.count = count
        }

        /// Those of this process; nil if they cannot be read.
        package init?() {
            guard let procfs = try? ProcFS(),
                let link = try? procfs.link("self/ns/net"), let namespace = link.inode(ofKind: "net"),
                let idle = Self.number("time", procfs), let interval = Self.number("intvl", procfs),
                let count = Self.number("probes", procfs)
            else { return nil }
            self.init(networkNamespace: namespace, idle: idle, interval: interval, count: count)
        }

        private static func number(_ name: String, _ procfs: ProcFS) -> Int32? {
            procfs.text("sys/net/ipv4/tcp_keepalive_\(name)")?.dropTrailingNewlines.decimal()
        }
    }
}

extension SocketResult {
    /// Whether all three values are the socket's own: this run has set them, or they differ from the sysctls.
    fileprivate func hasOwnSettings(_ defaults: SocketMemory.Defaults?) -> Bool {
        guard let after else { return false }
        let known = defaults.flatMap { $0.networkNamespace == socket.networkNamespace ? $0 : nil }
        let before = action == .set ? before : nil
        func isOwn(_ value: Int32, before: Int32?, sysctl: Int32?) -> Bool {
            before.map { $0 != value } == true || sysctl.map { $0 != value } == true
        }
        return isOwn(after.idle, before: before?.idle, sysctl: known?.idle)
            && isOwn(after.interval, before: before?.interval, sysctl: known?.interval)
            && isOwn(after.count, before: before?.count, sysctl: known?.count)
    }
}

/// Whether what is remembered of a socket is still so, by its row in the socket table.
enum MemoryFit: Equatable {
    /// The timer is as it would be.
    case confirmed
    /// The table does not tell: other timers hide that of keepalive, and a listener has none.
    case hidden
    /// The timer is another one, or the memory is too old.
    case contradicted
}

extension SocketMemory.Entry {
    /// The clock is the kernel's tick, and two messages of the kernel are not from one moment.
    private static let slack = 2000

    /// - Parameters:
    ///   - now: milliseconds since boot, not before the row was read.
    ///   - firewallTimeout: against which the settings are judged.
    func fit(_ row: SocketRow, now: Int, firewallTimeout: Seconds) -> MemoryFit {
        guard (0...SocketMemory.maxAge).contains(now - readAt), activeAt <= now else { return .contradicted }
        guard row.state.hasPeer else { return .hidden }
        switch row.timer {
        case .none: return settings.enabled ? .contradicted : .confirmed
        case .retransmission, .windowProbe, .other: return .hidden
        case .keepalive(let seconds):
            guard settings.enabled else { return .contradicted }
            let firesIn = Int((min(seconds, 1e9) * 1000).rounded(.up))
            let idle = row.idleSeconds.map { Int((min($0, 1e9) * 1000).rounded(.up)) }
            guard isUsual(firesIn, idle: idle) else { return .contradicted }
            guard settings.verdict(against: firewallTimeout) == .protected else { return .confirmed }
            return provesTimely(now + firesIn, idle: idle, now, firewallTimeout) ? .confirmed : .contradicted
        }
    }

    /// Whether the timer can be that of these settings (net/ipv4/tcp_timer.c, tcp_keepalive_timer): it is armed for the
    /// rest of the idle time, from a moment when the connection may have been active more recently than now is known; or,
    /// behind a probe, for the interval.
    private func isUsual(_ firesIn: Int, idle: Int?) -> Bool {
        let (first, next) = (Int(settings.idle) * 1000, Int(settings.interval) * 1000)
        guard let idle else { return firesIn <= max(first, next) + Self.slack }
        let isBehindProbe = idle >= first - Self.slack && firesIn <= next + Self.slack
        return isBehindProbe || idle + firesIn <= max(first, next) + Self.slack
    }

    /// Whether the idle time in force is short enough for the firewall, whatever the owner has set since. It is the
    /// socket's own, and follows no sysctl (``SocketMemory/Defaults``).
    ///
    /// Who sets TCP_KEEPIDLE to K, or switches keepalive on, arms the timer for the last activity plus K at least
    /// (net/ipv4/tcp.c, tcp_sock_set_keepidle_locked); and what the kernel arms later fires later still. No activity since
    /// the last look is before ``activeAt``. So a timer that fires before `activeAt` + X was armed with K < X.
    private func provesTimely(_ firesAt: Int, idle: Int?, _ now: Int, _ firewallTimeout: Seconds) -> Bool {
        let active = min(activeAt, idle.map { now - $0 } ?? activeAt)
        return firesAt - active < (firewallTimeout.count - 2 * Int(settings.interval)) * 1000
    }
}

/// What can be said of sockets without access to their processes: by the kernel's tables, and by what was remembered.
///
/// Only the ptrace method stops its targets. By pidfd a socket is always asked itself.
final class UntouchedSockets {
    private let memory: SocketMemory
    /// Forgotten before a socket is touched that is remembered.
    private let memoryFile: String?
    private let mode: KeepaliveRun.Mode
    private let method: Method
    /// A listing reads inside its targets, because somebody asked for that.
    private let mayStopForListing: Bool
    private let now: () -> Int
    private var hasForgotten = false

    /// - Parameter now: milliseconds since boot.
    init(
        memory: SocketMemory, memoryFile: String? = nil, mode: KeepaliveRun.Mode, method: Method,
        choice: MethodChoice, now: @escaping () -> Int = { bootMilliseconds }
    ) {
        self.memory = memory
        self.memoryFile = memoryFile
        self.mode = mode
        self.method = method
        mayStopForListing = mode == .list && choice == .ptrace
        self.now = now
    }

    /// nil if the socket is to be asked itself.
    func result(for socket: DiscoveredSocket, _ request: KeepaliveRequest) -> SocketResult? {
        guard method == .ptrace, !mayStopForListing, !socket.isUndecided, socket.holder != nil else { return nil }
        let entry = memory.entry(of: socket)
        let fit = entry?.fit(socket.row, now: now(), firewallTimeout: request.firewallTimeout) ?? .contradicted
        if let entry, fit == .confirmed {
            let plan = KeepalivePlan(current: entry.settings, request: request)
            if mode != .inject || plan == .leave { return remembered(socket, entry, plan, .memory) }
        }
        if mode == .inject { return nil }
        if let entry, fit == .hidden {
            return remembered(socket, entry, KeepalivePlan(current: entry.settings, request: request), .oldMemory)
        }
        return seen(socket, request)
    }

    /// An injection that is killed meanwhile leaves no memory of what was before.
    func willReach(_ socket: DiscoveredSocket) {
        guard !hasForgotten, let memoryFile, memory.entry(of: socket) != nil else { return }
        hasForgotten = true
        SocketMemory.forget(memoryFile)
    }

    private func remembered(
        _ socket: DiscoveredSocket, _ entry: SocketMemory.Entry, _ plan: KeepalivePlan, _ source: SettingsSource
    ) -> SocketResult {
        let action: SocketAction = mode == .list ? .none : plan == .leave ? .unchanged : .wouldSet
        return SocketResult(
            untouched: socket, action: action, settings: entry.settings,
            planned: mode == .list ? entry.settings : entry.settings.applying(plan), source: source)
    }

    /// What the table alone tells.
    private func seen(_ socket: DiscoveredSocket, _ request: KeepaliveRequest) -> SocketResult {
        let isSet = mode == .dryRun && socket.row.needsSetting(for: request) == true
        let isLeft = mode == .dryRun && socket.row.needsSetting(for: request) == false
        let wanted = request.wanted
        let planned = KeepaliveSettings(
            enabled: wanted.enabled, idle: wanted.idle, interval: wanted.interval, count: wanted.count,
            userTimeout: wanted.userTimeout ?? 0)
        return SocketResult(
            untouched: socket, action: isSet ? .wouldSet : isLeft ? .unchanged : .none, settings: nil,
            planned: isSet ? planned : nil, source: .table)
    }
}

/// Where the settings of a socket are from.
package enum SettingsSource: UInt8, BitwiseCopyable, Sendable {
    /// The socket itself was asked.
    case socket
    /// From the last time that it was asked. Its timer fits.
    case memory
    /// The same, but its timer is hidden, or it has none.
    case oldMemory
    /// Only the table tells: whether keepalive is on, and its idle time.
    case table

    package var isRemembered: Bool { self == .memory || self == .oldMemory }
}

extension SocketResult {
    fileprivate init(
        untouched socket: DiscoveredSocket, action: SocketAction, settings: KeepaliveSettings?,
        planned: KeepaliveSettings?, source: SettingsSource
    ) {
        self.init(
            socket: socket, request: KeepaliveRequest(), action: action, before: settings, after: settings,
            planned: planned, idleSeconds: socket.row.state.hasPeer ? socket.row.idleSeconds : nil, method: nil,
            crashSafe: nil, rights: nil, pausedMicroseconds: 0, failure: nil, probe: nil, settingsSource: source)
    }

    /// What the table tells of keepalive, where nothing else does.
    package var keepaliveByTimer: TimerReading? {
        settingsSource == .table ? socket.row.keepaliveReading : nil
    }
}

/// What the timer of a connection tells of its keepalive.
package struct TimerReading: Equatable, Sendable {
    package let enabled: Bool
    /// TCP_KEEPIDLE, if nothing has moved since the timer was armed; else less. nil where it is off, or the source does
    /// not tell how long the connection has been idle.
    package let idle: Int32?
}

extension SocketRow {
    /// nil if the timer of keepalive is hidden.
    var keepaliveReading: TimerReading? {
        switch timer {
        case .none: state.hasPeer ? TimerReading(enabled: false, idle: nil) : nil
        case .keepalive(let seconds):
            TimerReading(
                enabled: true, idle: idleSeconds.map { Int32(clamping: Int(min($0 + seconds, 1e9).rounded())) })
        case .retransmission, .windowProbe, .other: nil
        }
    }

    /// What is certain without the socket's settings.
    func verdictByTimer(against firewallTimeout: Seconds) -> Verdict? {
        guard let reading = keepaliveReading else { return nil }
        guard reading.enabled else { return .unprotected }
        // The next probe comes after the firewall's timeout.
        return reading.idle.map { Int($0) >= firewallTimeout.count } == true ? .atRisk : nil
    }

    /// Whether an injection would set something; nil where only the socket itself tells.
    fileprivate func needsSetting(for request: KeepaliveRequest) -> Bool? {
        guard let reading = keepaliveReading else { return nil }
        guard request.wanted.enabled else { return reading.enabled }
        if !reading.enabled { return true }
        // An interval has one second at least.
        return reading.idle.map { Int($0) + 2 >= request.firewallTimeout.count } == true ? true : nil
    }
}

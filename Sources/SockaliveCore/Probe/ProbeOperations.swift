/// Makes one socket send a keepalive probe now.
struct ProbeArming: SocketOperation {
    let clock: ProbeClock
    /// ``SocketRow/keepaliveByTimer`` of the socket.
    var keepaliveByTimer: Bool?
    /// The settings that a worker found which was killed before it could put them back.
    var known: KeepaliveSettings?
    /// Told of the settings before anything is changed.
    var willArm: (KeepaliveSettings) -> Void = { _ in }

    struct Outcome {
        let found: KeepaliveSettings
        let tcpInfo: TCPInfo
        /// nil for a listener, which has no peer to ask.
        var pending: PendingProbe?
        /// Something was changed, and is to be put back.
        let isTouched: Bool
        /// A call that failed after the first had succeeded.
        let error: (any Error)?
    }

    func run(on socket: inout some SocketOptions & ~Copyable) throws -> Outcome {
        var found = try socket.keepalive()
        let hasOwnMarker = known != nil && found.hasProbeMarker
        if let known, hasOwnMarker { found = known }
        let tcpInfo = try socket.tcpInfo()
        guard !tcpInfo.isListening else {
            return Outcome(found: found, tcpInfo: tcpInfo, pending: nil, isTouched: false, error: nil)
        }
        // What the subflow has could not be put back.
        if !hasOwnMarker, try socket.differFromSubflow(found, timer: keepaliveByTimer) {
            throw SocketFailure.subflowDiffers
        }
        let steps = ProbePlan.arming(found, tcpInfo)
        var failure: (any Error)?
        let asked = clock.milliseconds
        do {
            if !steps.isEmpty {
                willArm(found)
                _ = try socket.apply(steps, to: found)
            }
        } catch {
            failure = error
        }
        return Outcome(
            found: found, tcpInfo: tcpInfo,
            pending: PendingProbe(asked: asked, isArmed: !steps.isEmpty, tcpInfo: tcpInfo),
            isTouched: !steps.isEmpty, error: failure)
    }
}

extension SocketFailure {
    fileprivate static let subflowDiffers = SocketFailure(
        .unsupported, .notSupported,
        "the MPTCP socket's keepalive is not that of its subflow, whose values cannot be read and put back",
        remedy: "inject gives both the same values; probe afterwards")
}

/// Puts one socket's settings back, and reads them.
struct ProbeRestoring: SocketOperation {
    let found: KeepaliveSettings

    struct Outcome {
        let after: KeepaliveSettings
        let tcpInfo: TCPInfo
    }

    func run(on socket: inout some SocketOptions & ~Copyable) throws -> Outcome {
        let tcpInfo = try socket.tcpInfo()
        let steps = ProbePlan.restoring(found, probesOutstanding: tcpInfo.probesOutstanding)
        if !steps.isEmpty { _ = try socket.apply(steps, to: found) }
        let after = try socket.keepalive()
        guard after == found else { throw SocketFailure.overwritten }
        return Outcome(after: after, tcpInfo: tcpInfo)
    }
}

/// Looks for an answer, and touches nothing.
struct ProbeReading: SocketOperation {
    func run(on socket: inout some SocketOptions & ~Copyable) throws -> TCPInfo {
        try socket.tcpInfo()
    }
}

/// Milliseconds since a probe run began. Like the kernel's ticks it stands still while the machine sleeps.
struct ProbeClock {
    private let start = SuspendingClock.now

    var milliseconds: Double { start.duration(to: .now).milliseconds }
}

/// Looks at connections while they are asked: through the kernel's sock_diag, which touches neither process nor
/// socket. Where that is not to be had, through the owner again, as the settings are.
final class TCPInfoReader {
    private let access: SocketAccess
    private let namespaces: NetworkNamespaces
    /// One for each network namespace, by its inode; nil where there is none to be had.
    private var connections: [UInt64?: DiagConnection?] = [:]
    private var hasTouched = false

    init(procfs: ProcFS, access: SocketAccess) {
        self.access = access
        namespaces = NetworkNamespaces(procfs: procfs)
    }

    func tcpInfo(of socket: DiscoveredSocket) throws(SocketFailure) -> AccessResult<TCPInfo> {
        WorkerProgress.enter(.socketTable, socket.process.pid, inode: socket.inode)
        if let tcpInfo = connection(to: socket)?.tcpInfo(of: socket.row) {
            return AccessResult(outcome: tcpInfo, method: access.method, pausedMicroseconds: 0)
        }
        hasTouched = true
        return try access.apply(ProbeReading(), to: socket)
    }

    /// How long to leave the connections alone when their probes left so many milliseconds ago.
    /// A look by ptrace stops the target, so there are few of them.
    func gap(after elapsed: Double) -> Double {
        hasTouched && access.method == .ptrace ? min(500, max(20, elapsed)) : min(20, max(0.3, elapsed / 5))
    }

    private func connection(to socket: DiscoveredSocket) -> DiagConnection? {
        let namespace = socket.networkNamespace
        if let known = connections[namespace] { return known }
        let connection = namespace.flatMap {
            try? DiagConnection(namespaces.diagSocket(in: .inode($0), seenBy: [socket.process.pid]))
        }
        connections.updateValue(connection, forKey: namespace)
        return connection
    }

    private final class DiagConnection {
        private var diag: SockDiagSocket

        init(_ diag: consuming SockDiagSocket) {
            self.diag = diag
        }

        func tcpInfo(of row: SocketRow) -> TCPInfo? {
            try? diag.tcpInfo(of: row)
        }
    }
}

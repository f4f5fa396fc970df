/// The result of `list`, `inject` and `probe` as JSON (Docs/sockalive-output.schema.json). The encoder turns keys into
/// snake_case. A value that could not be read is null and never left out.
package struct RunReport: Encodable, Sendable {
    package let schema = 1
    package let command: String
    package let dryRun: Bool
    /// Seconds; null if the rules differ.
    @Nullable package var firewallTimeout: Int?
    @Nullable package var wanted: WantedReport?
    package let sockets: [SocketReport]
    /// Matching processes that could not be looked at. Nobody knows their sockets.
    package let failedProcesses: [FailedProcessReport]
    package let summary: Summary

    enum CodingKeys: CodingKey {
        case schema, command, dryRun, firewallTimeout, wanted, sockets, failedProcesses, summary
    }

    package init(
        command: String, dryRun: Bool, isProbed: Bool = false, rules: RuleSet, results: [SocketResult],
        failures: [ProcessFailure] = []
    ) {
        self.command = command
        self.dryRun = dryRun
        let request = rules.sharedRequest
        _firewallTimeout = Nullable(wrappedValue: request?.firewallTimeout.count)
        _wanted = Nullable(wrappedValue: request.map { WantedReport($0.wanted) })
        self.sockets = results.map { SocketReport($0) }
        failedProcesses = failures.map(FailedProcessReport.init)
        self.summary = Summary(results, failures, isProbed: isProbed)
    }
}

/// Counts over all sockets of a run.
package struct Summary: Encodable, Sendable {
    package let candidates: Int
    package let set: Int
    package let unchanged: Int
    package let failed: Int
    @Nullable package var answered: Int?
    @Nullable package var silent: Int?

    /// - Parameters:
    ///   - failures: of matching processes that could not be looked at; they count as failed.
    ///   - isProbed: connections were asked, even where there was none.
    package init(_ results: [SocketResult], _ failures: [ProcessFailure] = [], isProbed: Bool = false) {
        candidates = results.count
        set = results.count { $0.action == .set }
        unchanged = results.count { $0.action == .unchanged }
        failed = results.count { $0.failure != nil } + failures.count
        let answers = results.compactMap(\.probe)
        let isProbed = isProbed || !answers.isEmpty
        _answered = Nullable(wrappedValue: isProbed ? answers.count { $0.answered } : nil)
        _silent = Nullable(wrappedValue: isProbed ? answers.count { !$0.answered } : nil)
    }
}

/// The wanted values. Times are seconds.
package struct WantedReport: Encodable, Sendable {
    package let enabled: Bool
    package let idle: Int32
    package let interval: Int32
    package let count: Int32
    @Nullable package var userTimeout: Double?

    init(_ wanted: KeepaliveRequest.Wanted) {
        enabled = wanted.enabled
        idle = wanted.idle
        interval = wanted.interval
        count = wanted.count
        _userTimeout = Nullable(wrappedValue: wanted.userTimeout.map { Double($0) / 1000 })
    }
}

/// An optional that is encoded as null if it is nil. The synthesized code would leave it out.
@propertyWrapper
package struct Nullable<Value: Encodable & Sendable>: Encodable, Sendable {
    package var wrappedValue: Value?

    package init(wrappedValue: Value?) {
        self.wrappedValue = wrappedValue
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let wrappedValue {
            try container.encode(wrappedValue)
        } else {
            try container.encodeNil()
        }
    }
}

/// One socket as JSON.
package struct SocketReport: Encodable, Sendable {
    let pid: Int32
    let process: String
    @Nullable var exe: String?
    let uid: UInt32
    @Nullable var fd: Int32?
    let holders: [HolderReport]
    let inode: UInt64
    @Nullable var cookie: String?
    @Nullable var netns: UInt64?
    let family: String
    let state: String
    let local: EndpointReport
    let remote: EndpointReport
    @Nullable var idleSeconds: Double?
    @Nullable var keepalive: KeepaliveReport?
    @Nullable var before: KeepaliveReport?
    @Nullable var nextProbeSeconds: Double?
    @Nullable var verdict: String?
    let firewallTimeout: Int
    let wanted: WantedReport
    let action: String
    @Nullable var method: String?
    @Nullable var crashSafe: Bool?
    @Nullable var rights: String?
    let pausedMicroseconds: Int
    /// The settings are those of the last injection, and were not read again.
    let remembered: Bool
    @Nullable var error: ErrorReport?
    @Nullable var probe: ProbeReport?

    init(_ result: SocketResult) {
        let socket = result.socket
        let row = socket.row
        pid = socket.process.pid
        process = socket.process.name.decoded
        _exe = Nullable(wrappedValue: socket.process.executable?.decoded)
        uid = socket.process.uid
        _fd = Nullable(wrappedValue: socket.holders.first?.fd)
        holders = socket.holders.map { HolderReport(pid: $0.pid, fd: $0.fd) }
        inode = row.inode
        _cookie = Nullable(wrappedValue: row.cookie.map(String.init))
        _netns = Nullable(wrappedValue: socket.networkNamespace)
        family = row.family.rawValue
        state = row.state.rawValue
        local = EndpointReport(row.local, row.scope(of: row.local))
        remote = EndpointReport(row.remote, row.scope(of: row.remote))
        _idleSeconds = Nullable(wrappedValue: result.idleSeconds)
        let byTimer = result.keepaliveByTimer.map(KeepaliveReport.init)
        _keepalive = Nullable(wrappedValue: result.after.map(KeepaliveReport.init) ?? byTimer)
        _before = Nullable(wrappedValue: result.before.map(KeepaliveReport.init) ?? byTimer)
        _nextProbeSeconds = Nullable(wrappedValue: result.nextProbeSeconds)
        _verdict = Nullable(wrappedValue: result.verdict?.rawValue)
        firewallTimeout = result.request.firewallTimeout.count
        wanted = WantedReport(result.request.wanted)
        action = result.action.rawValue
        _method = Nullable(wrappedValue: result.method?.rawValue)
        _rights = Nullable(wrappedValue: result.rights?.rawValue)
        _crashSafe = Nullable(wrappedValue: result.crashSafe)
        pausedMicroseconds = result.pausedMicroseconds
        remembered = result.settingsSource.isRemembered
        _error = Nullable(wrappedValue: result.failure.map(ErrorReport.init))
        _probe = Nullable(wrappedValue: result.probe.map(ProbeReport.init))
    }
}

/// A matching process that could not be looked at.
package struct FailedProcessReport: Encodable, Sendable {
    let pid: Int32
    @Nullable var process: String?
    let error: ErrorReport

    init(_ process: ProcessFailure) {
        pid = process.pid
        _process = Nullable(wrappedValue: process.name?.decoded)
        error = ErrorReport(process.failure)
    }
}

struct HolderReport: Encodable, Sendable {
    let pid: Int32
    let fd: Int32
}

/// An endpoint. A v4-mapped address is shown as IPv4.
struct EndpointReport: Encodable, Sendable {
    let address: String
    let port: UInt16
    /// The interface of a link-local address, by its name or its number; null for others, and where it is not known.
    @Nullable var scope: String?

    init(_ endpoint: Endpoint, _ scope: NetworkInterface?) {
        address = endpoint.address.unmapped.description
        port = endpoint.port
        _scope = Nullable(wrappedValue: scope?.label.decoded)
    }
}

/// The keepalive options of a socket. All times are seconds, TCP_USER_TIMEOUT too.
struct KeepaliveReport: Encodable, Sendable {
    let enabled: Bool
    @Nullable var idle: Int32?
    @Nullable var interval: Int32?
    @Nullable var count: Int32?
    @Nullable var userTimeout: Double?

    init(_ settings: KeepaliveSettings) {
        enabled = settings.enabled
        _idle = Nullable(wrappedValue: settings.idle)
        _interval = Nullable(wrappedValue: settings.interval)
        _count = Nullable(wrappedValue: settings.count)
        _userTimeout = Nullable(wrappedValue: Double(settings.userTimeout) / 1000)
    }

    /// What the timer tells; no table has the rest.
    init(_ reading: TimerReading) {
        enabled = reading.enabled
        _idle = Nullable(wrappedValue: reading.idle)
        _interval = Nullable(wrappedValue: nil)
        _count = Nullable(wrappedValue: nil)
        _userTimeout = Nullable(wrappedValue: nil)
    }
}

struct ErrorReport: Encodable, Sendable {
    let code: String
    let message: String
    @Nullable var remedy: String?

    init(_ failure: SocketFailure) {
        code = failure.code
        message = failure.message
        _remedy = Nullable(wrappedValue: failure.remedy)
    }
}

struct ProbeReport: Encodable, Sendable {
    let answered: Bool
    @Nullable var milliseconds: Double?

    init(_ answer: ProbeAnswer) {
        answered = answer.answered
        _milliseconds = Nullable(wrappedValue: answer.milliseconds.map { ($0 * 10).rounded() / 10 })
    }
}

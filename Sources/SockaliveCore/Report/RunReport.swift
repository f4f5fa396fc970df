/// The result of `list`, `inject` and `probe` as the contract's JSON says it. Keys become snake_case in the
/// encoder; a value that could not be read is null and never left out.
public struct RunReport: Encodable, Sendable {
    public let schema = 1
    public let command: String
    public let dryRun: Bool
    /// Seconds; null where the rules differ.
    @Nullable public var firewallTimeout: Int?
    @Nullable public var wanted: WantedReport?
    public let sockets: [SocketReport]
    public let summary: Summary

    enum CodingKeys: CodingKey {
        case schema, command, dryRun, firewallTimeout, wanted, sockets, summary
    }

    public init(
        command: String, dryRun: Bool, isProbed: Bool = false, rules: RuleSet, results: [SocketResult]
    ) {
        self.command = command
        self.dryRun = dryRun
        let request = rules.sharedRequest
        _firewallTimeout = Nullable(wrappedValue: request?.firewallTimeout.count)
        _wanted = Nullable(wrappedValue: request.map { WantedReport($0.wanted) })
        self.sockets = results.map { SocketReport($0) }
        self.summary = Summary(results, isProbed: isProbed)
    }
}

/// Counts over all sockets of a run.
public struct Summary: Encodable, Sendable {
    public let candidates: Int
    public let set: Int
    public let unchanged: Int
    public let failed: Int
    @Nullable public var answered: Int?
    @Nullable public var silent: Int?

    /// - Parameter isProbed: connections were asked, even where there was none.
    public init(_ results: [SocketResult], isProbed: Bool = false) {
        candidates = results.count
        set = results.count { $0.action == .set }
        unchanged = results.count { $0.action == .unchanged }
        failed = results.count { $0.failure != nil }
        let answers = results.compactMap(\.probe)
        let isProbed = isProbed || !answers.isEmpty
        _answered = Nullable(wrappedValue: isProbed ? answers.count { $0.answered } : nil)
        _silent = Nullable(wrappedValue: isProbed ? answers.count { !$0.answered } : nil)
    }
}

/// The values that were asked for. Seconds.
public struct WantedReport: Encodable, Sendable {
    public let enabled: Bool
    public let idle: Int32
    public let interval: Int32
    public let count: Int32
    @Nullable public var userTimeout: Double?

    init(_ wanted: KeepaliveRequest.Wanted) {
        enabled = wanted.enabled
        idle = wanted.idle
        interval = wanted.interval
        count = wanted.count
        _userTimeout = Nullable(wrappedValue: wanted.userTimeout.map { Double($0) / 1000 })
    }
}

/// An optional that is encoded as null where it is nil: the synthesized code would leave it out.
@propertyWrapper
public struct Nullable<Value: Encodable & Sendable>: Encodable, Sendable {
    public var wrappedValue: Value?

    public init(wrappedValue: Value?) {
        self.wrappedValue = wrappedValue
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let wrappedValue {
            try container.encode(wrappedValue)
        } else {
            try container.encodeNil()
        }
    }
}

/// The result of `guard status` as JSON. Keys are snake_case, and a value that is not known is null.
package struct GuardStatusReport: Encodable, Sendable {
    package let schema = 1
    package let command = "guard status"
    package let guards: [GuardReport]

    enum CodingKeys: CodingKey {
        case schema, command, guards
    }

    package init(_ guards: [(GuardState, [Neighbour]?)]) {
        self.guards = guards.map(GuardReport.init)
    }
}

/// One guarded place.
package struct GuardReport: Encodable, Sendable {
    /// As the command line named it.
    @Nullable var place: String?
    @Nullable var cgroup: String?
    let cgroupId: String
    /// The cgroup is there. If not, nothing is guarded any more.
    let active: Bool
    /// null: any port, or not known.
    @Nullable var ports: [UInt16]?
    @Nullable var anyPort: Bool?
    @Nullable var override: Bool?
    @Nullable var firewallTimeout: Int?
    @Nullable var wanted: WantedReport?
    @Nullable var treated: UInt64?
    @Nullable var kept: UInt64?
    @Nullable var failed: UInt64?
    let programId: UInt32
    let linkId: UInt32
    /// null: not known.
    @Nullable var others: [NeighbourReport]?

    init(_ state: GuardState, _ neighbours: [Neighbour]?) {
        let settings = state.settings
        _place = Nullable(wrappedValue: settings?.place)
        _cgroup = Nullable(wrappedValue: settings?.path)
        cgroupId = String(state.cgroupID)
        active = state.isAttached
        _ports = Nullable(wrappedValue: settings?.ports?.sorted())
        _anyPort = Nullable(wrappedValue: settings.map { $0.ports == nil })
        _override = Nullable(wrappedValue: settings?.overrides)
        _firewallTimeout = Nullable(wrappedValue: settings?.request.firewallTimeout.count)
        _wanted = Nullable(wrappedValue: settings.map { WantedReport($0.request.wanted) })
        _treated = Nullable(wrappedValue: state.counts?.treated)
        _kept = Nullable(wrappedValue: state.counts?.kept)
        _failed = Nullable(wrappedValue: state.counts?.failed)
        programId = state.programID
        linkId = state.linkID
        _others = Nullable(wrappedValue: neighbours?.map(NeighbourReport.init))
    }
}

/// The settings that a guard gives to each connection.
struct WantedReport: Encodable, Sendable {
    let enabled: Bool
    /// Seconds.
    let idle, interval: Int32
    let count: Int32
    @Nullable var userTimeout: Double?

    fileprivate init(_ wanted: KeepaliveRequest.Wanted) {
        enabled = wanted.enabled
        idle = wanted.idle
        interval = wanted.interval
        count = wanted.count
        _userTimeout = Nullable(wrappedValue: wanted.userTimeout.map { Double($0) / 1000 })
    }
}

/// Another program at the same cgroup or above it.
struct NeighbourReport: Encodable, Sendable {
    let cgroup: String
    let programId: UInt32
    @Nullable var name: String?
    /// `multi`, `override` or `none`.
    let attach: String

    init(_ neighbour: Neighbour) {
        cgroup = neighbour.cgroup
        programId = neighbour.id
        _name = Nullable(wrappedValue: neighbour.name?.decoded)
        attach = neighbour.attachMode
    }
}

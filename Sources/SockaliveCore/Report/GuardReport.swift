/// The result of `guard status` as JSON. Keys are snake_case, and a value that is not known is null.
package struct GuardStatusReport {
    private let guards: [(state: GuardState, neighbours: [Neighbour]?)]

    /// - Parameter guards: each with the other programs at its cgroup and above; nil: they are not known.
    package init(_ guards: [(GuardState, [Neighbour]?)]) {
        self.guards = guards.map { (state: $0.0, neighbours: $0.1) }
    }

    /// - Parameter sink: takes the next part of the document; false if nobody reads it.
    /// - Returns: whether all was written.
    package func write(to sink: @escaping (UnsafeRawBufferPointer) -> Bool) -> Bool {
        var json = JSONWriter(sink: sink)
        json.object { json in
            json.member("command", "guard status")
            json.array("guards") { json in
                for (state, neighbours) in guards {
                    json.element { state.write(neighbours, to: &$0) }
                }
            }
            json.member("schema", 1)
        }
        return json.finish()
    }
}

extension GuardState {
    fileprivate func write(_ neighbours: [Neighbour]?, to json: inout JSONWriter) {
        // The cgroup is there. If not, nothing is guarded any more.
        json.member("active", isAttached)
        json.member("any_port", settings.map { $0.ports == nil })
        json.member("cgroup", settings?.path)
        json.member("cgroup_id", quoted: cgroupID)
        json.member("failed", counts?.failed)
        json.member("firewall_timeout", settings?.request.firewallTimeout.count)
        json.member("kept", counts?.kept)
        json.member("link_id", linkID)
        json.array("others", neighbours) { json, neighbours in
            for neighbour in neighbours {
                json.element { neighbour.write(to: &$0) }
            }
        }
        json.member("override", settings?.overrides)
        // As the command line named it.
        json.member("place", settings?.place)
        // null: any port, or not known.
        json.member("ports", settings?.ports?.sorted())
        json.member("program_id", programID)
        json.member("treated", counts?.treated)
        json.object("wanted", settings?.request.wanted) { $1.write(to: &$0) }
    }
}

extension Neighbour {
    fileprivate func write(to json: inout JSONWriter) {
        json.member("attach", attachMode)
        json.member("cgroup", cgroup)
        json.member("name", name?.decoded)
        json.member("program_id", id)
    }
}

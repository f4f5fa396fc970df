import SystemPackage

/// One run of `guard on`, `off` or `status`: the hierarchy of cgroups, and the guards that are pinned.
package struct GuardRun {
    private let machine: GuardMachine
    private let store: GuardStore?

    /// - Parameter makes: guards are to be made.
    package init(makes: Bool) throws(GuardFailure) {
        machine = try GuardMachine()
        store = try GuardStore.open(machine.procfs, makes: makes)
    }

    /// What became of one cgroup of a place.
    package struct Result: Sendable {
        package let path: String
        package let change: GuardStore.Change
    }

    /// Guards every cgroup that the place means now.
    package func turnOn(
        _ place: GuardPlace, ports: Set<UInt16>?, _ request: KeepaliveRequest, overrides: Bool
    ) throws(GuardFailure) -> (results: [Result], notes: [String]) {
        guard let store else { return ([], []) }
        if !overrides { try machine.diagnosis.checkOwnChoice() }
        var results: [Result] = []
        let meant = try place.cgroups(machine.hierarchy, machine.procfs)
        for cgroup in meant.cgroups {
            let settings = GuardSettings(
                ports: ports, request: request, overrides: overrides, place: place.words, path: cgroup.path)
            results.append(
                Result(path: cgroup.path, change: try store.guardCGroup(cgroup, machine.hierarchy, settings)))
        }
        return (results, meant.notes)
    }

    /// Ends the guards of a place: those that were made with its words, and those of the cgroups that it means now.
    ///
    /// - Parameter place: nil is every place.
    /// - Returns: the guards that were there.
    package func turnOff(_ place: GuardPlace?) throws(GuardFailure) -> [GuardState] {
        guard let store else { return [] }
        guard let place else { return try store.remove { _ in true } }
        var ids: Set<UInt64> = []
        var failure: GuardFailure?
        do throws(GuardFailure) {
            ids = Set(try place.meant(machine.hierarchy, machine.procfs).cgroups.map(\.id))
        } catch {
            failure = error
        }
        // A unit that has ended is meant by its words alone.
        let removed = try store.remove { $0.place == place.words || ids.contains($0.cgroupID) }
        if removed.isEmpty, let failure { throw failure }
        return removed
    }

    /// Each guard, and the other programs at its cgroup and above.
    package func states() throws(GuardFailure) -> [(GuardState, [Neighbour]?)] {
        let states = try store?.states() ?? []
        let own = Set(states.map(\.programID))
        var result: [(GuardState, [Neighbour]?)] = []
        for state in states {
            let neighbours = (try? neighbours(of: state)) ?? nil
            result.append((state, neighbours?.filter { !own.contains($0.id) }))
        }
        return result
    }

    /// nil: another cgroup has that path.
    private func neighbours(of state: GuardState) throws(Errno) -> [Neighbour]? {
        guard state.isAttached else { return [] }
        let cgroup = try machine.hierarchy.cgroup(state.path)
        return cgroup.id == state.cgroupID ? try Neighbour.all(at: cgroup, machine.hierarchy) : nil
    }
}

import SystemPackage

/// One run of `guard on`, `off` or `status`: the hierarchy of cgroups, and the guards that are pinned.
package struct GuardRun {
    private let procfs: ProcFS
    private let diagnosis: GuardDiagnosis
    private let hierarchy: CGroupHierarchy
    private let store: GuardStore?

    /// - Parameter makes: guards are to be made.
    package init(makes: Bool) throws(GuardFailure) {
        do {
            procfs = try ProcFS()
        } catch {
            throw GuardFailure(.unsupported, "/proc cannot be read (\(error))", remedy: "mount it")
        }
        // Each guard takes some descriptors, and the usual limit of 1,024 is for programs that use select(2).
        try? OpenFiles.raiseLimit()
        diagnosis = GuardDiagnosis(procfs: procfs)
        if let failure = diagnosis.oldKernel { throw failure }
        do throws(Errno) {
            hierarchy = try CGroupHierarchy(procfs: procfs)
        } catch {
            throw GuardDiagnosis.noCGroups(error)
        }
        store = try GuardStore.open(procfs, makes: makes)
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
        if !overrides { try diagnosis.checkOwnChoice() }
        var results: [Result] = []
        let meant = try place.cgroups(hierarchy, procfs)
        for cgroup in meant.cgroups {
            let settings = GuardSettings(
                ports: ports, request: request, overrides: overrides, place: place.words, path: cgroup.path)
            results.append(Result(path: cgroup.path, change: try store.guardCGroup(cgroup, hierarchy, settings)))
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
        // A unit that has ended is meant by its words alone.
        let ids = Set(((try? place.meant(hierarchy, procfs))?.cgroups ?? []).map(\.id))
        return try store.remove { $0.place == place.words || ids.contains($0.cgroupID) }
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
        let cgroup = try hierarchy.cgroup(state.path)
        return cgroup.id == state.cgroupID ? try Neighbour.all(at: cgroup, hierarchy) : nil
    }
}

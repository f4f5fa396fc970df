import SystemPackage

/// The part of a rule that a guard can follow: a place, ports and values.
package struct GuardWish: Hashable, Sendable {
    package let place: GuardPlace
    package let ports: Set<UInt16>?
    package let request: KeepaliveRequest

    /// The places of a rule; nil where the rule means less than all processes of a place, or peers by their address: a
    /// guard cannot tell these apart, and would treat more than was asked for.
    package static func wishes(of rule: Rule) -> [GuardWish]? {
        let (processes, sockets) = (rule.selection.processes, rule.selection.sockets)
        guard rule.request.wanted.enabled, sockets.remote == nil, processes.executable == nil, processes.uid == nil,
            processes.names.isEmpty, processes.pids.isEmpty, processes.commands.isEmpty
        else { return nil }
        let places =
            processes.anyProcess && processes.places.isEmpty
            ? [GuardPlace.host] : GuardPlace.places(of: processes.places)
        guard let places else { return nil }
        return places.map { GuardWish(place: $0, ports: sockets.ports, request: rule.request) }
    }
}

/// Guards that end with this process, however it ends: their links are not pinned, and the kernel removes a link with
/// its last descriptor.
package final class WatchGuard {
    private struct Key: Hashable {
        let cgroup: UInt64
        let wish: GuardWish
    }

    private struct Attached {
        let path: String
        let link: BPFObject
        let maps: GuardMaps

        /// The cgroup is there.
        var isThere: Bool { (try? BPF.linkInfo(link))?.cgroupID != nil }
    }

    private let machine: GuardMachine
    private var attached: [Key: Attached] = [:]

    /// - Throws: `GuardFailure` if this machine has no guards.
    package init() throws(GuardFailure) {
        machine = try GuardMachine()
        try machine.diagnosis.checkOwnChoice()
    }

    /// What one round changed.
    package struct Round {
        /// Cgroups that are guarded from now on.
        package var made: [String] = []
        package var failures: [GuardFailure] = []
    }

    /// Guards the cgroups that are meant now and are not guarded yet, and no longer those that are not meant any more.
    /// Where it cannot be told now what is meant, what is guarded stays so.
    package func update(_ wishes: [GuardWish]) -> Round {
        var round = Round()
        var meant: [Key: Attached] = [:]
        // Of several guards of one cgroup the first that treats a connection counts.
        for wish in wishes.sorted(by: { $0.request.firewallTimeout < $1.request.firewallTimeout }) {
            let now: GuardPlace.Meant
            do throws(GuardFailure) {
                now = try wish.place.meant(machine.hierarchy, machine.procfs)
            } catch {
                round.failures.append(
                    GuardFailure(
                        error.kind, "\(UntrustedText(wish.place.words).escaped): \(error.message)",
                        remedy: error.remedy))
                retain(&meant) { key, _ in key.wish == wish }
                continue
            }
            let isAnyKept = retain(&meant) { key, attached in
                key.wish == wish && !now.cgroups.contains { $0.id == key.cgroup }
                    && (now.unknown.contains(key.cgroup) || now.walk.mayHaveMissed(attached.path))
            }
            if isAnyKept {
                let reason = "it cannot be told now what is meant" + now.notes.map { "; \($0)" }.joined()
                round.failures.append(GuardFailure(.other, "\(UntrustedText(wish.place.words).escaped): \(reason)"))
            }
            // A unit that does not run has none: that is no failure of a watch.
            for cgroup in now.cgroups {
                let key = Key(cgroup: cgroup.id, wish: wish)
                guard meant[key] == nil else { continue }
                if let present = attached[key] {
                    meant[key] = present
                    continue
                }
                do throws(GuardFailure) {
                    meant[key] = try attach(wish, to: cgroup)
                    round.made.append(cgroup.path)
                } catch {
                    round.failures.append(error)
                }
            }
        }
        attached = meant
        return round
    }

    /// - Returns: whether there was any.
    @discardableResult
    private func retain(_ meant: inout [Key: Attached], where isKept: (Key, Attached) -> Bool) -> Bool {
        let kept = attached.filter { isKept($0.key, $0.value) && $0.value.isThere }
        meant.merge(kept) { first, _ in first }
        return !kept.isEmpty
    }

    private func attach(_ wish: GuardWish, to cgroup: CGroup) throws(GuardFailure) -> Attached {
        let settings = GuardSettings(
            ports: wish.ports, request: wish.request, overrides: false, place: wish.place.words, path: cgroup.path)
        let loaded = try LoadedGuard(settings, machine.diagnosis)
        let link = try loaded.attach(to: cgroup, machine.hierarchy, machine.diagnosis)
        return Attached(path: cgroup.path, link: link, maps: loaded.maps)
    }

    /// For the metrics.
    package var samples: [GuardSample] {
        attached.map { key, attached in
            GuardSample(
                place: key.wish.place.words, cgroup: attached.path, isActive: true, counts: try? attached.maps.counts())
        }
    }
}

/// One guard, for the metrics.
package struct GuardSample: Sendable {
    package let place: String
    package let cgroup: String
    package let isActive: Bool
    package let counts: GuardCounts?

    init(place: String, cgroup: String, isActive: Bool, counts: GuardCounts?) {
        self.place = place
        self.cgroup = cgroup
        self.isActive = isActive
        self.counts = counts
    }

    package init(_ state: GuardState) {
        self.init(place: state.place, cgroup: state.path, isActive: state.isAttached, counts: state.counts)
    }

    /// The pinned guards of this machine; none where they cannot be read.
    package static var pinned: [GuardSample] {
        guard let procfs = try? ProcFS(), let store = try? GuardStore.open(procfs, makes: false) else { return [] }
        return ((try? store.states()) ?? []).map(GuardSample.init)
    }
}

import Glibc
import SystemPackage

/// The guards that are pinned: one folder for each cgroup, by the cgroup's number.
///
/// In it are the link, and the two maps of the program that the link has, by the program's number. A guard is there as
/// soon as its link is pinned, and the link says which maps are valid. So each change is one system call, and whoever is
/// killed before or after it leaves the old state or the new one. What is left over is removed by the next change.
package struct GuardStore {
    private let folder: GuardFolder
    private let diagnosis: GuardDiagnosis

    /// - Parameter makes: mounts the BPF file system and makes the folder where they are missing.
    /// - Returns: nil where there is no guard, and none is to be made.
    package static func open(_ procfs: ProcFS, makes: Bool) throws(GuardFailure) -> GuardStore? {
        try GuardFolder.open(makes: makes).map { GuardStore(folder: $0, diagnosis: GuardDiagnosis(procfs: procfs)) }
    }

    private static let linkName = "link"

    private enum MapName {
        static func control(_ program: UInt32) -> String { "control_\(program)" }
        static func settings(_ program: UInt32) -> String { "settings_\(program)" }
    }

    private static func folderName(_ cgroup: UInt64) -> String {
        let digits = String(cgroup, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    // MARK: changes

    /// What `guard on` did at one place.
    package enum Change: Equatable, Sendable {
        case made
        case replaced
        case unchanged
    }

    /// Guards a cgroup, or gives its guard other settings.
    package func guardCGroup(
        _ cgroup: CGroup, _ hierarchy: CGroupHierarchy, _ settings: GuardSettings
    ) throws(GuardFailure) -> Change {
        try folder.lock()
        let name = Self.folderName(cgroup.id)
        let change: Change
        if let pinned = try pinned(name), pinned.isAttached {
            change = try replace(pinned, name, settings)
        } else {
            try make(cgroup, hierarchy, name, settings)
            change = .made
        }
        removeOldMaps(name)
        removeLeftovers(of: settings)
        return change
    }

    private func make(
        _ cgroup: CGroup, _ hierarchy: CGroupHierarchy, _ name: String, _ settings: GuardSettings
    ) throws(GuardFailure) {
        try remove(name)
        let loaded = try LoadedGuard(settings, diagnosis)
        let link = try loaded.attach(to: cgroup, hierarchy, diagnosis)
        do throws(Errno) {
            let own = try folder.folder(name, makes: true)
            try pinMaps(loaded, own)
            try BPF.pin(link, own.path(Self.linkName))
        } catch {
            try? folder.removeFolder(name, first: Self.linkName)
            throw diagnosis.failure("the guard cannot be pinned", error)
        }
    }

    private func pinMaps(_ loaded: LoadedGuard, _ own: GuardFolder) throws(Errno) {
        let id = try BPF.programInfo(loaded.program).id
        for (map, name) in [
            (loaded.maps.control, MapName.control(id)), (loaded.maps.settings, MapName.settings(id)),
        ] {
            // A killed run may have left one of a program that had this number.
            try own.remove(name)
            try BPF.pin(map, own.path(name))
        }
    }

    private func replace(
        _ pinned: PinnedGuard, _ name: String, _ settings: GuardSettings
    ) throws(GuardFailure) -> Change {
        do throws(Errno) {
            if let maps = pinned.maps, let bytes = try? maps.valid(), GuardLayout.isOfThisProgram(bytes) {
                if bytes == GuardLayout.encode(settings) { return .unchanged }
                try maps.replace(settings)
                return .replaced
            }
        } catch {
            throw diagnosis.failure("the settings cannot be changed", error)
        }
        // Another version's program, or one whose maps are gone.
        let loaded = try LoadedGuard(settings, diagnosis)
        do throws(Errno) {
            let own = try folder.folder(name)
            try pinMaps(loaded, own)
            try BPF.replaceProgram(of: pinned.link, by: loaded.program)
            return .replaced
        } catch {
            throw diagnosis.failure("the program cannot be replaced", error)
        }
    }

    /// Of a program that the link no longer has.
    private func removeOldMaps(_ name: String) {
        guard let own = try? folder.folder(name), let pinned = try? pinned(name) else { return }
        let id = pinned.info.programID
        for entry in (try? own.names()) ?? []
        where ![Self.linkName, MapName.control(id), MapName.settings(id)].contains(entry) {
            try? own.remove(entry)
        }
    }

    /// Removes what killed runs left, and guards of the same place whose cgroup is gone.
    private func removeLeftovers(of settings: GuardSettings) {
        for name in (try? folder.names()) ?? [] {
            // What cannot be read is left to the next change.
            guard let pinned = try? Optional.some(pinned(name)) else { continue }
            let isOver = pinned.map { !$0.isAttached && ($0.settings?.isAtPlace(of: settings) ?? true) } ?? true
            if isOver { try? folder.removeFolder(name, first: Self.linkName) }
        }
    }

    /// Removes the guards that are meant.
    ///
    /// - Returns: those that were there.
    package func remove(_ matches: (GuardState) -> Bool) throws(GuardFailure) -> [GuardState] {
        try folder.lock()
        var removed: [GuardState] = []
        for name in try names() {
            let state = try pinned(name).map(GuardState.init)
            if let state, !matches(state) { continue }
            try remove(name)
            if let state { removed.append(state) }
        }
        return removed
    }

    private func remove(_ name: String) throws(GuardFailure) {
        do throws(Errno) {
            try folder.removeFolder(name, first: Self.linkName)
        } catch {
            throw GuardFailure(
                error.isPermission ? .permission : .other,
                "the guard of cgroup \(UntrustedText(name).escaped) cannot be removed (\(error))",
                remedy: "look at /sys/fs/bpf/sockalive: it has to be writable")
        }
    }

    // MARK: what is there

    /// Each guard, by the path of its cgroup.
    package func states() throws(GuardFailure) -> [GuardState] {
        // Without the lock: nobody who holds it keeps a reader waiting, and each change is one step.
        var states: [GuardState] = []
        for name in try names() {
            if let pinned = try pinned(name) { states.append(GuardState(pinned)) }
        }
        return states.sorted { $0.path < $1.path }
    }

    private func names() throws(GuardFailure) -> [String] {
        do throws(Errno) {
            return try folder.names()
        } catch {
            throw diagnosis.failure("the guards cannot be listed", error)
        }
    }

    /// nil: no link is pinned there, so it is no guard.
    private func pinned(_ name: String) throws(GuardFailure) -> PinnedGuard? {
        let (own, link, info): (GuardFolder, BPFObject, BPF.LinkInfo)
        do throws(Errno) {
            own = try folder.folder(name)
            link = try BPF.pinned(own.path(Self.linkName))
            info = try BPF.linkInfo(link)
        } catch .noSuchFileOrDirectory {
            return nil
        } catch {
            throw diagnosis.failure("the guard of cgroup \(UntrustedText(name).escaped) cannot be read", error)
        }
        let control = try? BPF.pinned(own.path(MapName.control(info.programID)))
        let settings = try? BPF.pinned(own.path(MapName.settings(info.programID)))
        let maps = control.flatMap { control in settings.map { GuardMaps(control: control, settings: $0) } }
        return PinnedGuard(link: link, info: info, cgroupID: UInt64(name, radix: 16) ?? 0, maps: maps)
    }
}

/// What one folder of the store has.
struct PinnedGuard {
    let link: BPFObject
    let info: BPF.LinkInfo
    let cgroupID: UInt64
    /// nil: they are missing.
    let maps: GuardMaps?

    /// The cgroup is there.
    var isAttached: Bool { info.cgroupID != nil }

    var settings: GuardSettings? { (try? maps?.valid()).flatMap(GuardLayout.decode) }
}

/// A guard as it is now.
package struct GuardState: Sendable {
    /// The cgroup is there. Else nothing is guarded any more: the unit has ended, or has another cgroup by now.
    package let isAttached: Bool
    package let cgroupID: UInt64
    package let linkID: UInt32
    package let programID: UInt32
    /// nil: another version made it, or its maps are gone.
    package let settings: GuardSettings?
    package let counts: GuardCounts?

    init(_ pinned: PinnedGuard) {
        isAttached = pinned.isAttached
        cgroupID = pinned.cgroupID
        linkID = pinned.info.id
        programID = pinned.info.programID
        settings = pinned.settings
        counts = try? pinned.maps?.counts()
    }

    package var path: String { settings?.path ?? "" }
    package var place: String { settings?.place ?? "" }
}

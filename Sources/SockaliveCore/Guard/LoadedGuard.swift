import SystemPackage

/// A program in the kernel with its two maps, attached or not yet.
struct LoadedGuard {
    let program: BPFObject
    let maps: GuardMaps

    /// Makes the maps, fills them, and loads the program that reads them.
    init(_ settings: GuardSettings, _ diagnosis: GuardDiagnosis) throws(GuardFailure) {
        diagnosis.raiseLockedMemoryLimit()
        do throws(Errno) {
            maps = try GuardMaps(settings)
        } catch {
            throw diagnosis.failure("no map can be made in the kernel", error)
        }
        do throws(BPF.LoadError) {
            program = try BPF.load(
                GuardProgram.instructions(control: maps.control.descriptor, settings: maps.settings.descriptor),
                GuardProgram.name, license: GuardProgram.license)
        } catch {
            throw diagnosis.failure("the kernel does not take the program", error.errno, log: error.log)
        }
    }

    /// Attaches the program to the cgroup for as long as the result is there, where no other program stands in the way.
    func attach(
        to cgroup: CGroup, _ hierarchy: CGroupHierarchy, _ diagnosis: GuardDiagnosis
    ) throws(GuardFailure) -> BPFObject {
        let action = "the program cannot be attached to \(UntrustedText(cgroup.path).escaped)"
        do throws(Errno) {
            var obstacle = try Neighbour.obstacle(at: cgroup, hierarchy)
            var link: BPFObject?
            if obstacle == nil {
                let attached = try BPF.link(program, to: cgroup.descriptor)
                // Another may have come in between.
                obstacle = try Neighbour.obstacle(at: cgroup, hierarchy, except: try BPF.linkInfo(attached).programID)
                link = attached
            }
            if let link, obstacle == nil { return link }
            throw .resourceBusy
        } catch {
            if let obstacle = (try? Neighbour.obstacle(at: cgroup, hierarchy)) ?? nil { throw obstacle.failure }
            throw diagnosis.failure(action, error)
        }
    }
}

/// The two maps of a guard (``GuardProgram``).
struct GuardMaps {
    let control: BPFObject
    let settings: BPFObject

    init(control: BPFObject, settings: BPFObject) {
        self.control = control
        self.settings = settings
    }

    init(_ settings: GuardSettings) throws(Errno) {
        control = try BPF.createArray(
            "sockalive_ctl", entries: GuardProgram.Control.allCases.count, valueSize: 8, isReadOnly: false)
        self.settings = try BPF.createArray("sockalive_set", entries: 2, valueSize: GuardLayout.size, isReadOnly: true)
        try BPF.update(self.settings, key: 0, GuardLayout.encode(settings))
    }

    private func number(_ place: GuardProgram.Control) throws(Errno) -> UInt64 {
        let bytes = try BPF.lookUp(control, key: place.rawValue, size: 8)
        return bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
    }

    /// The bytes of the settings that are valid.
    func valid() throws(Errno) -> [UInt8] {
        try BPF.lookUp(settings, key: UInt32(try number(.selected) & 1), size: GuardLayout.size)
    }

    /// From one connection to the next these settings are valid. Whoever is killed meanwhile leaves the old ones or the
    /// new ones.
    func replace(_ new: GuardSettings) throws(Errno) {
        let other = (try number(.selected) & 1) ^ 1
        try BPF.update(settings, key: UInt32(other), GuardLayout.encode(new))
        try BPF.update(control, key: GuardProgram.Control.selected.rawValue, withUnsafeBytes(of: other) { Array($0) })
    }

    func counts() throws(Errno) -> GuardCounts {
        GuardCounts(treated: try number(.treated), kept: try number(.kept), failed: try number(.failed))
    }
}

/// How many new connections a guard has seen on its ports.
package struct GuardCounts: Equatable, Sendable {
    /// They got keepalive.
    package let treated: UInt64
    /// Their program had chosen keepalive itself.
    package let kept: UInt64
    /// The kernel refused to read or set an option.
    package let failed: UInt64
}

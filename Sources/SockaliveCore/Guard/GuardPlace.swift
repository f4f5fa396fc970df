import Glibc
import SystemPackage

/// What a guard belongs to, as the command line names it: the host, or a unit, a container, a pod, a path of cgroups.
package struct GuardPlace: Hashable, Sendable {
    /// Of one kind, with one entry; empty is the host.
    private let selection: PlaceSelection
    /// The words of the command line.
    package let words: String

    private init(_ selection: PlaceSelection, words: String) {
        self.selection = selection
        self.words = words
    }

    package static let host = GuardPlace(PlaceSelection(), words: "--host")

    package init(unit: UnitName) {
        self.init(PlaceSelection(units: [unit]), words: "--unit \(unit)")
    }

    package init(container: ContainerSelector) {
        self.init(PlaceSelection(containers: [container]), words: "--container \(container)")
    }

    package init(pod: PodSelector) {
        self.init(PlaceSelection(pods: [pod]), words: "--pod \(pod)")
    }

    package init(cgroup: CGroupGlob) {
        self.init(PlaceSelection(cgroups: [cgroup]), words: "--cgroup \(cgroup)")
    }

    /// The places of a selection; nil if a process has to be in places of several kinds.
    package static func places(of selection: PlaceSelection) -> [GuardPlace]? {
        let kinds = [
            selection.units.map { GuardPlace(unit: $0) }, selection.containers.map { GuardPlace(container: $0) },
            selection.pods.map { GuardPlace(pod: $0) }, selection.cgroups.map { GuardPlace(cgroup: $0) },
        ].filter { !$0.isEmpty }
        return kinds.count == 1 ? kinds[0] : nil
    }

    /// How many bytes of its words a guard keeps.
    package static let maxWords = GuardLayout.placeSize - 1

    package var isHost: Bool { selection.isEmpty }

    /// Names of containers and pods stand in files and command lines of others, which may keep a reader waiting.
    private var asksNames: Bool { !selection.containers.isEmpty || !selection.pods.isEmpty }

    /// Whether the cgroup may be the place itself, and no part of it.
    private func mayBePlace(_ path: CGroupPath) -> Bool {
        let depth = path.components.count
        if !selection.units.isEmpty { return path.unit?.depth == depth && selection.mayMean(path) }
        if !selection.containers.isEmpty { return path.container?.depth == depth && selection.mayMean(path) }
        if !selection.pods.isEmpty { return path.pod?.depth == depth }
        return selection.cgroups.contains { $0.depth == depth } && selection.mayMean(path)
    }

    private func step(_ path: CGroupPath) -> CGroupHierarchy.Step {
        if mayBePlace(path) { return .take }
        guard let last = path.components.last else { return .descend }
        // A unit is the first component that is no slice.
        if !selection.units.isEmpty { return UnitName(component: last)?.isSlice ?? false ? .descend : .skip }
        if !selection.cgroups.isEmpty {
            return selection.cgroups.contains { $0.mayMatchBelow(path) } ? .descend : .skip
        }
        // The outermost container counts, and a pod lies above it.
        return path.container == nil ? .descend : .skip
    }

    /// What a place means now.
    struct Meant {
        var cgroups: [CGroup] = []
        /// Those of which nobody knows now: their names could not be asked for.
        var unknown: Set<UInt64> = []
        /// What was not looked at.
        var walk = CGroupHierarchy.Walk()

        var notes: [String] { walk.cut.map(\.line) }
    }

    /// The cgroups that are meant now.
    ///
    /// - Throws: also if there is none: there is nothing to attach to.
    func cgroups(_ hierarchy: CGroupHierarchy, _ procfs: ProcFS) throws(GuardFailure) -> Meant {
        let meant = try meant(hierarchy, procfs)
        guard meant.cgroups.isEmpty else { return meant }
        if let note = meant.notes.first { throw GuardFailure(.other, note, remedy: "give the path with --cgroup") }
        throw absence
    }

    /// Also none: a unit that does not run has none.
    func meant(_ hierarchy: CGroupHierarchy, _ procfs: ProcFS) throws(GuardFailure) -> Meant {
        if isHost { return Meant(cgroups: [try host(hierarchy)]) }
        var meant = Meant()
        do throws(Errno) {
            meant.walk = try hierarchy.topmost(step)
        } catch .tooManyReferences {
            throw GuardFailure(
                .other, "there are too many cgroups to look at all of them", remedy: "give the path with --cgroup")
        } catch {
            throw GuardFailure(
                error.isPermission ? .permission : .other, "the cgroups cannot be read (\(error))",
                remedy: "run as root on the host")
        }
        meant.cgroups = meant.walk.found
        if asksNames && !meant.cgroups.isEmpty {
            let answers = try answers(meant.cgroups, procfs)
            meant.unknown = Set(meant.cgroups.filter { answers[$0.path] == .unknown }.map(\.id))
            meant.cgroups = meant.cgroups.filter { answers[$0.path] == .yes }
        }
        return meant
    }

    private func host(_ hierarchy: CGroupHierarchy) throws(GuardFailure) -> CGroup {
        let root: CGroup
        do throws(Errno) {
            root = try hierarchy.root
        } catch {
            throw GuardFailure(.other, "the cgroups cannot be read (\(error))", remedy: "run as root on the host")
        }
        guard root.isMachineRoot else {
            throw GuardFailure(
                .unsupported, "this cgroup namespace shows a part of the machine, so --host would not be the host",
                remedy: "run it on the host, or in the host's cgroup namespace (podman run --cgroupns=host)")
        }
        return root
    }

    private enum Answer: String {
        case yes = "+"
        /// No name is known, or who could be asked hangs or has just ended.
        case unknown = "?"
    }

    /// Which of them bear the name or the ID; "no" is left out. A worker asks, so that nobody keeps this process waiting.
    private func answers(_ cgroups: [CGroup], _ procfs: ProcFS) throws(GuardFailure) -> [String: Answer] {
        let text: String
        do throws(SearchError) {
            text = try SupervisedText(control: RunControl(limit: nil), limit: Self.maxSearch).text { hangs in
                // Descriptors beside the worker's own are closed by now: what it needs is opened again.
                guard let procfs = try? ProcFS(), let hierarchy = try? CGroupHierarchy(procfs: procfs) else {
                    return cgroups.map { Answer.unknown.rawValue + $0.path }.joined(separator: "\n")
                }
                let places = ProcessPlaces(procfs: procfs)
                return cgroups.compactMap { cgroup in
                    answer(cgroup, hierarchy, places, hangs.processes).map { $0.rawValue + cgroup.path }
                }.joined(separator: "\n")
            }
        } catch {
            throw GuardFailure(
                .other, "the names of containers and pods cannot be looked up (\(error))",
                remedy: "give the ID, or the path with --cgroup")
        }
        // The kernel allows no line feed in a name.
        var answers: [String: Answer] = [:]
        for line in text.split(separator: "\n") {
            answers[String(line.dropFirst())] = Answer(rawValue: String(line.prefix(1)))
        }
        return answers
    }

    /// nil is no.
    private func answer(
        _ cgroup: CGroup, _ hierarchy: CGroupHierarchy, _ places: ProcessPlaces, _ hung: [Int32: SocketFailure]
    ) -> Answer? {
        let process: Int32?
        do throws(Errno) {
            let now = try hierarchy.cgroup(cgroup.path)
            guard now.id == cgroup.id else { return nil }
            process = try now.someProcess(except: hung)
        } catch {
            return error.isOfGoneCgroup ? nil : .unknown
        }
        guard let pid = process else { return hung.isEmpty ? nil : .unknown }
        guard let matches = try? places.matches(pid, selection) else { return .unknown }
        return matches ? .yes : places.namelessProcesses.contains(pid) ? .unknown : nil
    }

    private static let maxSearch = Seconds(5)

    private var absence: GuardFailure {
        let remedy: String
        if let unit = selection.units.first {
            remedy =
                "systemctl start \(UntrustedText(unit.description).escaped) and guard it then; or guard its slice, "
                + "such as --cgroup /system.slice, which is there before"
        } else if asksNames {
            remedy = "start it and guard it then; if it runs, its name cannot be known here: give its ID"
        } else {
            remedy = "look for it with systemd-cgls"
        }
        return GuardFailure(
            .other, "nothing runs in \(UntrustedText(words).escaped), so there is nothing to attach to", remedy: remedy)
    }
}

extension CGroup {
    /// A process in it, or in one below; nil if there is none, or it is in another PID namespace.
    fileprivate func someProcess(except hung: [Int32: SocketFailure]) throws(Errno) -> Int32? {
        var waiting = [self]
        var count = 0
        while let cgroup = waiting.popLast(), count < Self.maxFolders {
            count += 1
            do throws(Errno) {
                if let pid = try cgroup.processes().first(where: { $0 > 0 && hung[$0] == nil }) { return pid }
                waiting += try cgroup.children(limit: Self.maxFolders - count)
            } catch let error where error.isOfGoneCgroup {
                continue
            }
        }
        return nil
    }

    private static let maxFolders = 1000
}

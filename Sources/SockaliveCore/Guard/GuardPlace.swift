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

    /// The cgroups that are meant now.
    ///
    /// - Throws: also if there is none: there is nothing to attach to.
    package func cgroups(_ hierarchy: CGroupHierarchy, _ procfs: ProcFS) throws(GuardFailure) -> [CGroup] {
        if isHost { return [try host(hierarchy)] }
        var found: [CGroup]
        do throws(Errno) {
            found = try hierarchy.topmost { mayBePlace(CGroupPath($0.utf8)) }
        } catch {
            throw GuardFailure(
                error.isPermission ? .permission : .other, "the cgroups cannot be read (\(error))",
                remedy: "run as root on the host")
        }
        if asksNames && !found.isEmpty {
            let meant = try Set(namesOfMeant(found, procfs))
            found = found.filter { meant.contains($0.path) }
        }
        guard !found.isEmpty else { throw absence }
        return found
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

    /// The paths of those that bear the name or the ID. A worker asks, so that nobody keeps this process waiting.
    private func namesOfMeant(_ cgroups: [CGroup], _ procfs: ProcFS) throws(GuardFailure) -> [String] {
        let text: String
        do throws(SearchError) {
            text = try SupervisedText(control: RunControl(limit: nil), limit: Self.maxSearch).text { hangs in
                // Descriptors beside the worker's own are closed by now: what it needs is opened again.
                guard let procfs = try? ProcFS(), let hierarchy = try? CGroupHierarchy(procfs: procfs) else {
                    return ""
                }
                let places = ProcessPlaces(procfs: procfs)
                return cgroups.filter { cgroup in
                    guard let pid = try? hierarchy.cgroup(cgroup.path).someProcess(except: hangs.processes) else {
                        return false
                    }
                    return (try? places.matches(pid, selection)) ?? false
                }.map(\.path).joined(separator: "\n")
            }
        } catch {
            throw GuardFailure(
                .other, "the names of containers and pods cannot be looked up (\(error))",
                remedy: "give the ID, or the path with --cgroup")
        }
        // The kernel allows no line feed in a name.
        return text.split(separator: "\n").map(String.init)
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
    fileprivate func someProcess(except hung: [Int32: SocketFailure]) -> Int32? {
        var waiting = [self]
        var count = 0
        while let cgroup = waiting.popLast(), count < Self.maxFolders {
            count += 1
            if let pid = cgroup.processes.first(where: { $0 > 0 && hung[$0] == nil }) { return pid }
            waiting += cgroup.children
        }
        return nil
    }

    private static let maxFolders = 1000
}

import Glibc
import SystemPackage

/// Where a process runs, with the names that are known.
package struct ProcessPlace: Equatable, Sendable {
    package let cgroup: CGroupPath
    /// nil if no name is known.
    package var containerName: UntrustedText?
    package var podName: PodName?

    package init(cgroup: CGroupPath, containerName: UntrustedText? = nil, podName: PodName? = nil) {
        self.cgroup = cgroup
        self.containerName = containerName
        self.podName = podName
    }

    package var unit: String? { cgroup.unit?.value.description }

    /// The container's name, or as much of its ID as its engine shows.
    package var containerLabel: UntrustedText? {
        guard let id = cgroup.container?.value else { return nil }
        return containerName ?? UntrustedText(id.isName ? id.text : String(id.text.prefix(12)))
    }

    /// The pod's name, with its namespace, or as much of its UID as tells it apart.
    package var podLabel: UntrustedText? {
        guard let pod = cgroup.pod?.value else { return nil }
        guard let podName else { return UntrustedText(pod.text.utf8.prefix(12)) }
        guard let namespace = podName.namespace else { return podName.name }
        return UntrustedText(namespace.bytes + [UInt8(ascii: "/")] + podName.name.bytes)
    }
}

/// Answers where processes run, and whether a selection means that. Each cgroup and each name is read once.
final class ProcessPlaces {
    private let procfs: ProcFS
    private let names: ContainerNames
    /// nil where the file system does not show all cgroups.
    private lazy var tree = CGroupTree(procfs: procfs)
    private var paths: [[UInt8]: CGroupPath] = [:]
    private var pathByPID: [Int32: CGroupPath] = [:]
    private var owners: [UntrustedText: UInt32] = [:]
    private struct Question: Hashable {
        let option: String
        /// Whether root's containers and pods are meant, or those of users.
        let isOfRoot: Bool
    }

    /// Names that were asked for, where some container or pod has none that is known: one process of it.
    private var nameless: [Question: (pid: Int32, id: String)] = [:]
    private var known: Set<Question> = []
    /// Processes that may be meant: their container or pod has no name that is known.
    private(set) var namelessProcesses: Set<Int32> = []

    init(procfs: ProcFS, files: HostFiles? = nil) {
        self.procfs = procfs
        names = ContainerNames(procfs: procfs, files: files)
    }

    /// The cgroup of a process.
    ///
    /// - Throws: `Errno`; `noSuchProcess` if it is gone, `noData` if the text does not tell.
    func path(of pid: Int32) throws -> CGroupPath {
        if let known = pathByPID[pid] { return known }
        WorkerProgress.enter(.cgroup, pid)
        let path = try currentPath(of: pid)
        pathByPID[pid] = path
        return path
    }

    /// Of a process that is not held: the number may be another one's soon.
    private func currentPath(of pid: Int32) throws -> CGroupPath {
        guard let path = try procfs.read("\(pid)/cgroup", limit: 1 << 20, { self.path(in: $0) }) else {
            throw Errno.noData
        }
        return path
    }

    /// Many processes have one text.
    private func path(in text: UnsafeBufferPointer<UInt8>) -> CGroupPath? {
        let key = Array(text)
        if let known = paths[key] { return known }
        guard let path = CGroupPath(procfs: key) else { return nil }
        paths[key] = path
        return path
    }

    /// nil if the process is gone, or its cgroup is unknown.
    ///
    /// - Parameter asksNames: whether names are looked up. Nothing depends on them here: they are shown.
    func place(of pid: Int32, asksNames: Bool) -> ProcessPlace? {
        guard let path = try? path(of: pid) else { return nil }
        var place = ProcessPlace(cgroup: path)
        guard asksNames else { return place }
        names.step = .details
        defer { names.step = .containerNames }
        let container = path.container.map { names.name(of: $0.value, owner: owner(of: $0, in: path), pid: pid) }
        place.containerName = container?.name
        place.podName = path.pod.flatMap { podName($0, in: path, container, pid) }
        return place
    }

    private func podName(
        _ pod: CGroupPath.Part<PodID>, in path: CGroupPath, _ container: ContainerName?, _ pid: Int32
    ) -> PodName? {
        names.name(
            of: pod.value, owner: owner(of: pod, in: path), container: path.container?.value, container, pid: pid)
    }

    // MARK: what is meant

    /// - Throws: `Errno` if the cgroup cannot be read.
    func matches(_ pid: Int32, _ selection: PlaceSelection) throws -> Bool {
        let path = try path(of: pid)
        guard selection.mayMean(path) else { return false }
        if !selection.containers.isEmpty {
            guard let part = path.container, selection.containers.contains(where: { matches($0, part, path, pid) })
            else { return false }
        }
        if !selection.pods.isEmpty {
            guard let part = path.pod, selection.pods.contains(where: { matches($0, part, path, pid) })
            else { return false }
        }
        return true
    }

    private func matches(
        _ selector: ContainerSelector, _ part: CGroupPath.Part<ContainerID>, _ path: CGroupPath, _ pid: Int32
    ) -> Bool {
        let owner = owner(of: part, in: path)
        return matches(
            Question(option: Self.option(selector), isOfRoot: owner == 0), pid, part.value.text,
            isByID: selector.isID(of: part.value), rootHas: rootHas(selector)
        ) {
            names.name(of: part.value, owner: owner, pid: pid).name
                .map { $0.bytes.elementsEqual(selector.description.utf8) }
        }
    }

    private func matches(
        _ selector: PodSelector, _ part: CGroupPath.Part<PodID>, _ path: CGroupPath, _ pid: Int32
    ) -> Bool {
        matches(
            Question(option: Self.option(selector), isOfRoot: owner(of: part, in: path) == 0), pid, part.value.text,
            isByID: selector.isID(of: part.value), rootHas: rootHas(selector)
        ) {
            let container = path.container.map {
                names.name(of: $0.value, owner: owner(of: $0, in: path), pid: pid)
            }
            return podName(part, in: path, container, pid).map(selector.isName)
        }
    }

    /// What a user names like root's container or pod is not taken for it.
    ///
    /// - Parameter hasName: whether the container or pod has the name that is sought; nil if none is known.
    private func matches(
        _ question: Question, _ pid: Int32, _ id: String, isByID: Bool, rootHas: @autoclosure () -> Bool,
        hasName: () -> Bool?
    ) -> Bool {
        if !isByID {
            guard let hasName = hasName() else {
                add(nameless: question, pid, id)
                return false
            }
            guard hasName else { return false }
        }
        guard question.isOfRoot || !rootHas() else { return false }
        known.insert(question)
        return true
    }

    private func add(nameless question: Question, _ pid: Int32, _ id: String) {
        namelessProcesses.insert(pid)
        if nameless[question] == nil { nameless[question] = (pid, id) }
    }

    private static func option(_ selector: ContainerSelector) -> String { "--container \(selector)" }
    private static func option(_ selector: PodSelector) -> String { "--pod \(selector)" }

    /// The names of a selection that no container or pod is known to have, while some has a name that cannot be known
    /// here.
    func unknownNames(_ selection: PlaceSelection) -> [(pid: Int32, UnansweredProcess.Reason)] {
        let containers = selection.containers.filter { !names.rootHas($0) }
            .map { (option: Self.option($0), kind: "container", idOption: "--container") }
        let pods = selection.pods.filter { !names.rootHas($0) }
            .map { (option: Self.option($0), kind: "pod", idOption: "--pod") }
        return (containers + pods).compactMap { option, kind, idOption in
            let root = Question(option: option, isOfRoot: true)
            let users = Question(option: option, isOfRoot: false)
            guard !known.contains(root), !known.contains(users), let (pid, id) = nameless[root] ?? nameless[users]
            else { return nil }
            return (pid, .unknownName(option: option, kind: kind, id: "\(idOption) \(id.prefix(12))"))
        }
    }

    private func rootHas(_ selector: ContainerSelector) -> Bool {
        if names.rootHas(selector) { return true }
        if selector.isID && running.containers.contains(where: { $0.hasPrefix(selector.description) }) { return true }
        return runningNames.containers.contains { $0.bytes.elementsEqual(selector.description.utf8) }
    }

    private func rootHas(_ selector: PodSelector) -> Bool {
        names.rootHas(selector) || running.pods.contains { selector.isID(of: PodID(text: $0)) }
            || runningNames.pods.contains { selector.isName($0) }
    }

    /// The IDs of root's containers and pods that run.
    private lazy var running: (containers: Set<String>, pods: Set<String>) = {
        var containers: Set<String> = []
        var pods: Set<String> = []
        func add(_ path: CGroupPath) {
            if let part = path.container, owner(of: part, in: path) == 0 { containers.insert(part.value.text) }
            if let part = path.pod, owner(of: part, in: path) == 0 { pods.insert(part.value.text) }
        }
        let isComplete = tree?.walk(
            { path in
                add(path)
                return path.container == nil ? .descend : .skip
            }, taken: { _, _ in true })
        if isComplete != true {
            for pid in (try? procfs.numbers(in: ".")) ?? [] { (try? currentPath(of: pid)).map(add) }
        }
        return (containers, pods)
    }()

    /// The names of root's containers and pods that run, wherever their storage is: their monitors tell it.
    private lazy var runningNames: (containers: [UntrustedText], pods: [PodName]) = {
        let found = tree?.processes { path in path.container == nil ? .descend : self.isOfRoot(path) ? .take : .skip }
        let pids = found.map { $0.sorted() } ?? (try? procfs.numbers(in: ".")) ?? []
        var seen: Set<String> = []
        var (containers, pods): ([UntrustedText], [PodName]) = ([], [])
        for pid in pids {
            guard let path = try? currentPath(of: pid), isOfRoot(path), let id = path.container?.value,
                seen.insert(id.text).inserted
            else { continue }
            let name = names.name(of: id, owner: 0, pid: pid)
            if let name = name.name { containers.append(name) }
            if let pod = path.pod, owner(of: pod, in: path) == 0, let name = podName(pod, in: path, name, pid) {
                pods.append(name)
            }
        }
        return (containers, pods)
    }()

    private func isOfRoot(_ path: CGroupPath) -> Bool { path.container.map { owner(of: $0, in: path) == 0 } ?? false }

    /// The user who could name a part: the one in whose manager it lies, or the owner of the first folder above it that
    /// is not root's (`Delegate=`, systemd.resource-control(5)).
    private func owner<Value>(of part: CGroupPath.Part<Value>, in path: CGroupPath) -> UInt32 {
        if let user = path.owner(ofDepth: part.depth) { return user }
        guard let tree, part.depth > 1 else { return 0 }
        let parent = path.path(depth: part.depth - 1)
        if let known = owners[parent] { return known }
        var owner: UInt32 = 0
        for depth in 1..<part.depth where owner == 0 { owner = tree.owner(of: path.path(depth: depth)) ?? 0 }
        owners[parent] = owner
        return owner
    }

    // MARK: the search

    /// The processes that some selection may mean: all of them, and some that none does.
    func candidates(_ selections: [PlaceSelection]) throws -> Set<Int32> {
        WorkerProgress.enter(.cgroup)
        let found = tree?.processes { path in
            if selections.contains(where: { $0.mayMean(path) }) { return .take }
            return selections.contains { $0.mayMeanBelow(path) } ? .descend : .skip
        }
        if let found { return found }
        return Set(try CGroupScan(root: procfs.root.rawValue, selections: selections).matching())
    }
}

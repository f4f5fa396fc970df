/// The name of a container, as its engine keeps it.
package struct ContainerName: Equatable, Sendable {
    /// Of a pod's container: without the names of pod and namespace.
    package var name: UntrustedText?
    /// The pod that the engine's name tells.
    package var pod: PodName?
}

/// The name of a pod. podman's pods have no namespace.
package struct PodName: Equatable, Sendable {
    package let name: UntrustedText
    package var namespace: UntrustedText?
}

/// Looks up names of containers and pods without asking a daemon: in the command line of the container's monitor, and in
/// the files of the engines.
///
/// A name of root's container comes from root's processes and files alone, and a name of a user's container from that
/// user's. What a user's names cost is bounded (``NameBudget``); behind the bound a name is unknown.
final class ContainerNames {
    private struct Key: Hashable {
        let id: String
        let owner: UInt32
    }

    private let procfs: ProcFS
    private let files: HostFiles?
    /// What the names are asked for.
    var step = WorkerStep.containerNames
    private var containers: [Key: ContainerName] = [:]
    private var pods: [Key: PodName?] = [:]
    private var stores: [String: [String: UntrustedText]] = [:]
    private var kubelet: (containers: [String: ContainerName], pods: [String: PodName])?
    private var homes: [UInt32: [UInt8]?] = [:]
    private var budget = NameBudget()

    init(procfs: ProcFS, files: HostFiles? = nil) {
        self.procfs = procfs
        self.files = files ?? HostFiles(procfs: procfs)
    }

    /// - Parameters:
    ///   - owner: the user who could name its cgroup; root is 0.
    ///   - pid: a process of the container.
    func name(of id: ContainerID, owner: UInt32, pid: Int32) -> ContainerName {
        if id.isName { return ContainerName(name: UntrustedText(id.text)) }
        let key = Key(id: id.text, owner: owner)
        if let name = containers[key] { return name }
        guard budget.rest(of: owner) > 0 else { return ContainerName() }
        budget.spend(NameBudget.lookUp, of: owner)
        WorkerProgress.enter(step, pid)
        let name = monitor(of: id, owner: owner, pid: pid)?.containerName ?? storedName(of: id, owner)
        containers[key] = name
        return name
    }

    // MARK: the monitor

    /// conmon(8) starts the container's first process and stays its parent. It runs outside of the container: what runs
    /// inside could claim to be one, for the parent of a process in the container is in the container, too, except for
    /// the first.
    private func monitor(of id: ContainerID, owner: UInt32, pid: Int32) -> MonitorArguments? {
        var pid = pid
        for _ in 0..<Self.maxAncestors {
            guard let stat = try? procfs.read("\(pid)/stat", { ProcessStat($0) }), stat.parent > 0 else { return nil }
            pid = stat.parent
            guard let path = procfs.text("\(pid)/cgroup").flatMap({ CGroupPath(procfs: $0) }) else { return nil }
            if path.container?.value == id { continue }
            guard let status = try? procfs.status("\(pid)"), status.users.areAll(owner),
                let text = try? procfs.prefix(of: "\(pid)/cmdline", count: 1 << 14),
                let arguments = MonitorArguments(text), arguments.id == id.text
            else { return nil }
            return arguments
        }
        return nil
    }

    private static let maxAncestors = 64

    // MARK: containers

    private func storedName(of id: ContainerID, _ owner: UInt32) -> ContainerName {
        if owner != 0 { return ContainerName(name: userName(of: id, owner)) }
        let sources: [() -> ContainerName?] = [
            { self.dockerName(of: id.text, in: "/var/lib/docker", 0) },
            { self.kubeletNames.containers[id.text] },
            { self.stored(id.text, in: Self.rootStorage, 0).map { ContainerName(name: $0) } },
            { self.annotatedName(of: id.text) },
        ]
        for source in sources {
            if let name = source() { return name }
        }
        return ContainerName()
    }

    private func userName(of id: ContainerID, _ owner: UInt32) -> UntrustedText? {
        guard let home = home(of: owner) else { return nil }
        let share = String(decoding: home, as: UTF8.self) + "/.local/share"
        return stored(id.text, in: share + "/containers/storage", owner)
            ?? dockerName(of: id.text, in: share + "/docker", owner)?.name
    }

    private static let rootStorage = "/var/lib/containers/storage"
    private static let drivers = ["overlay", "vfs", "btrfs", "zfs"]

    /// podman's and CRI-O's list of containers (containers.go of containers/storage); those of `--rm` are in another.
    private func stored(_ id: String, in storage: String, _ owner: UInt32) -> UntrustedText? {
        if stores[storage] == nil {
            var names: [String: UntrustedText] = [:]
            let volatile = owner == 0 ? "/run/containers/storage" : "/run/user/\(owner)/containers"
            for driver in Self.drivers {
                for file in [
                    "\(storage)/\(driver)-containers/containers.json",
                    "\(storage)/\(driver)-containers/volatile-containers.json",
                    "\(volatile)/\(driver)-containers/volatile-containers.json",
                ] {
                    guard let text = json(file, owner, limit: HostFiles.maxSize) else { continue }
                    names.merge(ContainerStore.names(text), uniquingKeysWith: { first, _ in first })
                }
            }
            stores[storage] = names
        }
        return stores[storage]?[id]
    }

    private func dockerName(of id: String, in folder: String, _ owner: UInt32) -> ContainerName? {
        json("\(folder)/containers/\(id)/config.v2.json", owner, limit: 1 << 20)
            .flatMap { JSONValue($0)?["Name"]?.bytes }.map {
                ContainerName(engineName: $0.drop { $0 == UInt8(ascii: "/") })
            }
    }

    /// - Parameter limit: for root's file.
    private func json(_ path: String, _ owner: UInt32, limit: Int) -> [UInt8]? {
        read(Array(path.utf8), owner, limit: owner == 0 ? limit : NameBudget.maxUserText)
    }

    private func read(_ path: [UInt8], _ owner: UInt32, limit: Int) -> [UInt8]? {
        let bytes = files?.read(path, owner: owner, limit: min(limit, budget.rest(of: owner)))
        budget.spend(bytes?.count ?? 0, of: owner)
        return bytes
    }

    /// What containerd, nerdctl and CRI-O write into the configuration of a container.
    private func annotatedName(of id: String) -> ContainerName? {
        guard let files else { return nil }
        let tasks = "/run/containerd/io.containerd.runtime.v2.task"
        let folders =
            files.names(in: tasks, owner: 0).map { "\(tasks)/\(String(decoding: $0, as: UTF8.self))/\(id)" }
            + Self.drivers.map { "/run/containers/storage/\($0)-containers/\(id)/userdata" }
            + Self.drivers.map { "\(Self.rootStorage)/\($0)-containers/\(id)/userdata" }
        for folder in folders {
            guard let text = files.read("\(folder)/config.json", owner: 0, limit: 1 << 20),
                let name = ContainerName(annotations: JSONValue(text)?["annotations"])
            else { continue }
            return name
        }
        return nil
    }

    // MARK: pods

    /// - Parameter container: the container in it that the process is in, and its name.
    func name(of id: PodID, owner: UInt32, container: ContainerID?, _ containerName: ContainerName?, pid: Int32)
        -> PodName?
    {
        if let name = containerName?.pod { return name }
        let key = Key(id: id.text, owner: owner)
        if let name = pods[key] { return name }
        guard budget.rest(of: owner) > 0 else { return nil }
        budget.spend(NameBudget.lookUp, of: owner)
        WorkerProgress.enter(step, pid)
        let name =
            owner == 0
            ? kubeletNames.pods[id.text] ?? podmanPod(id, owner, container, pid) : podmanPod(id, owner, container, pid)
        pods[key] = name
        return name
    }

    /// The kubelet's folders: `/var/log/pods/NAMESPACE_NAME_UID` and `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
    private var kubeletNames: (containers: [String: ContainerName], pods: [String: PodName]) {
        if let kubelet { return kubelet }
        var containers: [String: ContainerName] = [:]
        var pods: [String: PodName] = [:]
        for name in files?.names(in: "/var/log/pods", owner: 0) ?? [] {
            if let (uid, pod) = KubeletNames.pod(name) { pods[uid] = pod }
        }
        for name in files?.names(in: "/var/log/containers", owner: 0) ?? [] {
            if let (id, container) = KubeletNames.container(name) { containers[id] = container }
        }
        kubelet = (containers, pods)
        return (containers, pods)
    }

    /// podman's database, in the storage that the monitor was told, or in the usual one.
    private func podmanPod(_ id: PodID, _ owner: UInt32, _ container: ContainerID?, _ pid: Int32) -> PodName? {
        guard id.text.utf8.count == ContainerID.length else { return nil }
        var storages = owner == 0 ? [Array(Self.rootStorage.utf8)] : []
        if owner != 0, let home = home(of: owner) {
            storages.append(home + Array("/.local/share/containers/storage".utf8))
        }
        if let container, let storage = monitor(of: container, owner: owner, pid: pid)?.storage {
            storages.insert(storage, at: 0)
        }
        for storage in storages {
            for file in ["/db.sql", "/db.sql-wal", "/libpod/bolt_state.db"] {
                guard let bytes = read(storage + Array(file.utf8), owner, limit: 64 << 20),
                    let name = ContainerStore.podName(of: id.text, in: bytes)
                else { continue }
                return PodName(name: name)
            }
        }
        return nil
    }

    /// Where a user's files are, as `/etc/passwd` of the host tells (passwd(5)).
    private func home(of uid: UInt32) -> [UInt8]? {
        if let home = homes[uid] { return home }
        let lines = (files?.read("/etc/passwd", owner: 0) ?? []).split(separator: UInt8(ascii: "\n"))
        let fields = lines.lazy.map { $0.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false) }
            .first { $0.count > 5 && $0[2].decimal() == uid }
        let home = fields.map { Array($0[5]) }
        homes.updateValue(home, forKey: uid)
        return home
    }

    // MARK: root's

    /// Whether root has a container of that name or ID, running or not.
    func rootHas(_ selector: ContainerSelector) -> Bool {
        _ = stored("", in: Self.rootStorage, 0)
        let stored = stores[Self.rootStorage] ?? [:]
        if stored.contains(where: { $1.bytes.elementsEqual(selector.description.utf8) }) { return true }
        if selector.isID && stored.keys.contains(where: { $0.hasPrefix(selector.description) }) { return true }
        for name in files?.names(in: "/var/lib/docker/containers", owner: 0) ?? [] {
            let id = String(decoding: name, as: UTF8.self)
            if selector.isID && id.hasPrefix(selector.description) { return true }
            let docker = dockerName(of: id, in: "/var/lib/docker", 0)
            if docker?.name?.bytes.elementsEqual(selector.description.utf8) ?? false { return true }
        }
        return kubeletNames.containers.contains { id, name in
            selector.isID && id.hasPrefix(selector.description)
                || name.name?.bytes.elementsEqual(selector.description.utf8) ?? false
        }
    }

    /// Whether root has a pod of that name or UID, as far as the kubelet tells.
    func rootHas(_ selector: PodSelector) -> Bool {
        kubeletNames.pods.contains { uid, name in selector.isID(of: PodID(text: uid)) || selector.isName(name) }
    }
}

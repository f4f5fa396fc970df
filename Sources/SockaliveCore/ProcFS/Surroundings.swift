import SystemPackage

/// Where this process runs: in which container and in which of the kernel's first namespaces.
///
/// What a remedy is depends on it. In a container nobody can "run as root": root is there, without its capabilities.
struct Surroundings: Equatable, Sendable {
    /// What started the container.
    enum Container: Equatable, Sendable {
        case docker, podman, kubernetes, nspawn
        /// It is a container, and nothing tells of which kind.
        case other
    }

    /// nil: no sign of a container.
    var container: Container?
    /// Whether this process is in the machine's initial namespaces; nil if it is unknown.
    var isFirstPID: Bool?
    var isFirstUser: Bool?
    var isFirstNetwork: Bool?

    /// The rights of a capability end with its user namespace.
    var hasOwnUsers: Bool { isFirstUser == false }

    /// Processes outside are invisible.
    var hasOwnProcesses: Bool { isFirstPID == false }
}

extension Surroundings {
    /// - Parameter files: the root folder, where container engines leave their marks; nil for a fixture.
    init(procfs: ProcFS, files: ProcFS? = nil) {
        // The initial PID and user namespaces have fixed numbers (include/linux/proc_ns.h). So has the initial network
        // namespace since Linux 6.18 (include/uapi/linux/nsfs.h); before, it is the one of PID 1 or kthreadd.
        func inode(_ path: String, _ kind: StaticString) -> UInt64? {
            (try? procfs.link(path))?.inode(ofKind: kind)
        }
        isFirstPID = inode("self/ns/pid", "pid").map { $0 == 0xEFFF_FFFC }
        isFirstUser = inode("self/ns/user", "user").map { $0 == 0xEFFF_FFFD }
        let own = inode("self/ns/net", "net")
        let first = isFirstPID == true ? inode("1/ns/net", "net") ?? inode("2/ns/net", "net") : nil
        isFirstNetwork = own == 0xEFFF_FFF9 ? true : own.flatMap { own in first.map { $0 == own } }
        container = Self.container(
            marks: files.map { files in Self.marks.filter { files.identity($0.file) != nil }.map(\.container) } ?? [],
            cgroup: procfs.text("self/cgroup") ?? [], mountinfo: procfs.text("self/mountinfo") ?? [])
    }

    /// Here and now.
    static func here(_ procfs: ProcFS) -> Surroundings {
        Surroundings(procfs: procfs, files: procfs.isOwn ? try? ProcFS(root: "/") : nil)
    }

    /// Files that only a container has. CRI-O and containerd leave none.
    private static let marks: [(file: String, container: Container)] = [
        ("var/run/secrets/kubernetes.io", .kubernetes), ("run/.containerenv", .podman), (".dockerenv", .docker),
        ("run/host/container-manager", .nspawn), ("run/systemd/container", .other),
    ]

    /// By what the engine mounts into the container, by its marks, and by the name of the cgroup.
    ///
    /// A virtual machine whose disk was made from an image has the marks of the engine that made it, and no mounts.
    static func container(marks: [Container], cgroup: [UInt8], mountinfo: [UInt8]) -> Container? {
        let sources = mountinfo.split(separator: UInt8(ascii: "\n")).compactMap { line -> String? in
            // ID, parent, device, the path in the mounted file system, the mount point (proc_pid_mountinfo(5)).
            let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 5)
            guard fields.count > 4, engineMounts.contains(String(decoding: fields[4], as: UTF8.self))
            else { return nil }
            return String(decoding: fields[3], as: UTF8.self)
        }
        let groups = String(decoding: cgroup, as: UTF8.self).split(whereSeparator: { "/\n:".contains($0) })
        if sources.contains(where: { $0.contains("/kubelet/pods/") }) { return .kubernetes }
        if groups.contains(where: { $0.hasPrefix("kubepods") }) { return .kubernetes }
        let marks = sources.isEmpty ? marks.filter { $0 == .nspawn || $0 == .other } : marks
        if let mark = marks.first { return mark }
        if sources.contains(where: { $0.contains("-containers/") && $0.contains("/userdata/") }) { return .podman }
        if sources.contains(where: { $0.contains("/containers/") }) { return .docker }
        // A loop, because a lazy sequence may call its closure twice.
        for group in groups {
            if let engine = Self.engine(ofGroup: group) { return engine }
        }
        return nil
    }

    /// What every engine mounts into every container.
    private static let engineMounts: Set = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv"]

    /// A scope or folder whose name ends in a container's ID of 64 digits.
    private static func engine(ofGroup name: Substring) -> Container? {
        let name = name.hasSuffix(".scope") ? name.dropLast(6) : name
        guard name.count >= 64, name.suffix(64).allSatisfy({ $0.isHexDigit && !$0.isUppercase }) else { return nil }
        switch name.dropLast(64) {
        case "docker-", "": return .docker
        case "libpod-", "libpod-payload-": return .podman
        case "cri-containerd-", "crio-": return .kubernetes
        default: return .other
        }
    }
}

// MARK: - Sentences

extension Surroundings {
    /// `in a podman container`.
    var containerPhrase: String? {
        switch container {
        case nil: nil
        case .docker: "in a docker container"
        case .podman: "in a podman container"
        case .kubernetes: "in a pod of Kubernetes"
        case .nspawn: "in a container of systemd-nspawn"
        case .other: "in a container"
        }
    }

    /// How to see the processes of the host.
    var toSeeTheHost: String {
        let asRoot = hasOwnUsers ? ", as the host's root" : ""
        switch container {
        case .docker, .podman:
            let engine = container == .docker ? "docker" : "podman"
            return "for an agent of the host: \(engine) run --pid=host\(asRoot); for another container's: "
                + "--pid=container:NAME"
        case .kubernetes:
            return "for an agent of the host: hostPID: true; for one of the same pod: shareProcessNamespace: true"
        case .nspawn: return "for an agent outside, run it on the host itself"
        case .other, nil:
            return "for an agent outside, run it on the host itself\(asRoot), or with the host's PID namespace "
                + "(docker run --pid=host, hostPID: true)"
        }
    }

    /// How to get capabilities.
    ///
    /// - Parameter isRoot: the effective user is 0 already.
    func toAdd(_ capabilities: Capabilities, isRoot: Bool) -> String {
        // The more important one first.
        let names = capabilities.intersection(.sysPtrace).names + capabilities.subtracting(.sysPtrace).names
        let listed = names.map { "CAP_\($0)" }.joined(separator: " and ")
        let options = (isRoot ? [] : ["--user 0"]) + names.map { "--cap-add \($0)" }
        let asRoot = isRoot ? "" : "as root and "
        switch container {
        case .docker: return "run the container \(asRoot)with \(listed): docker run " + options.joined(separator: " ")
        case .podman: return "run the container \(asRoot)with \(listed): podman run " + options.joined(separator: " ")
        case .kubernetes:
            let user = isRoot ? "" : "runAsUser: 0, "
            return "in the securityContext of the container: \(user)capabilities: add: "
                + "[\(names.joined(separator: ", "))]"
        case .nspawn:
            let list = names.map { "CAP_\($0)" }.joined(separator: ",")
            return "run \(isRoot ? "the container" : "as root, and the container") with "
                + "systemd-nspawn --capability=\(list)"
        case .other, nil:
            guard isRoot else { return "run as root or with \(listed)" }
            return "add \(listed): CapabilityBoundingSet= in a unit, --cap-add for a container"
        }
    }

    /// How to come out of the user namespace.
    var toLeaveTheUserNamespace: String {
        switch container {
        case .docker: "run the container without a user namespace of its own: not rootless, and with --userns=host"
        case .podman: "run the container as the host's root (sudo podman run), and without --userns"
        case .kubernetes: "in the pod's spec: hostUsers: true"
        case .nspawn: "run the container without --private-users, or run it on the host itself"
        case .other, nil: "run as the host's root, outside this user namespace"
        }
    }

    /// How to come out from under a seccomp filter on this process itself.
    var toRunWithoutFilter: String {
        switch container {
        case .docker: "docker run --security-opt seccomp=unconfined"
        case .podman: "podman run --security-opt seccomp=unconfined"
        case .kubernetes: "in the securityContext: seccompProfile: type: Unconfined"
        case .nspawn, .other, nil: "run it outside the container, unit or sandbox that filters its system calls"
        }
    }
}

import SystemPackage

/// What a guard belongs to, as the command line names it.
package struct GuardPlace: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case host
        case unit(UnitName)
        /// Its name, or its ID from 12 digits on.
        case container(String)
        /// Its UID from 12 digits on.
        case pod(String)
        case cgroup(CGroupGlob)
    }

    package let kind: Kind

    package init(_ kind: Kind) {
        self.kind = kind
    }

    /// The words of the command line.
    package var words: String {
        switch kind {
        case .host: "--host"
        case .unit(let name): "--unit \(name)"
        case .container(let text): "--container \(text)"
        case .pod(let text): "--pod \(text)"
        case .cgroup(let glob): "--cgroup \(glob)"
        }
    }

    private static let minDigits = 12

    /// Whether the cgroup is the place itself, and no part of it.
    private func isPlace(_ path: CGroupPath) -> Bool {
        let depth = path.components.count
        switch kind {
        case .host: return depth == 0
        case .unit(let name): return path.unit.map { $0.depth == depth && $0.value == name } ?? false
        case .container(let text):
            return path.container.map { $0.depth == depth && Self.isID(text, of: $0.value) } ?? false
        case .pod(let text):
            return path.pod.map {
                $0.depth == depth && text.utf8.count >= Self.minDigits && $0.value.text.hasPrefix(text)
            }
                ?? false
        case .cgroup(let glob): return glob.depth == depth && glob.matches(path)
        }
    }

    private static func isID(_ text: String, of id: ContainerID) -> Bool {
        id.isName ? id.text == text : text.utf8.count >= minDigits && id.text.hasPrefix(text)
    }

    /// The cgroups that are meant now.
    ///
    /// - Throws: also if there is none: there is nothing to attach to.
    package func cgroups(_ hierarchy: CGroupHierarchy, _ procfs: ProcFS) throws(GuardFailure) -> [CGroup] {
        let found: [CGroup]
        do throws(Errno) {
            found = kind == .host ? [try hierarchy.root] : try hierarchy.topmost { isPlace(CGroupPath($0.utf8)) }
        } catch {
            throw GuardFailure(
                error.isPermission ? .permission : .other, "the cgroups cannot be read (\(error))",
                remedy: "run as root on the host")
        }
        if kind == .host, found.contains(where: { !$0.isMachineRoot }) {
            throw GuardFailure(
                .unsupported, "this cgroup namespace shows a part of the machine, so --host would not be the host",
                remedy: "run it on the host, or in the host's cgroup namespace (podman run --cgroupns=host)")
        }
        guard !found.isEmpty else { throw absence }
        return found
    }

    private var absence: GuardFailure {
        let remedy =
            switch kind {
            case .unit(let name):
                "systemctl start \(UntrustedText(name.description).escaped) and guard it then; or guard its slice, "
                    + "such as --cgroup /system.slice, which is there before"
            case .container, .pod:
                "start it and guard it then; its name is looked up without a daemon, its ID always serves"
            case .cgroup, .host: "look for it with systemd-cgls"
            }
        return GuardFailure(
            .other, "nothing runs in \(UntrustedText(words).escaped), so there is nothing to attach to", remedy: remedy)
    }
}

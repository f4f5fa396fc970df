import SystemPackage

/// What a guard belongs to, as the command line names it.
package struct GuardPlace: Sendable {
    package enum Kind: Equatable, Sendable {
        case host
        /// The path of a cgroup.
        case cgroup(String)
    }

    package let kind: Kind

    package init(_ kind: Kind) {
        self.kind = kind
    }

    /// The words of the command line.
    package var words: String {
        switch kind {
        case .host: "--host"
        case .cgroup(let path): "--cgroup \(path)"
        }
    }

    private func matches(_ path: String) -> Bool {
        switch kind {
        case .host: path == "/"
        case .cgroup(let wanted): wanted == path
        }
    }

    /// The cgroups that are meant now.
    package func cgroups(_ tree: CGroupTree, _ procfs: ProcFS) throws(GuardFailure) -> [CGroup] {
        let found: [CGroup]
        do throws(Errno) {
            if kind == .host {
                found = [try tree.root]
            } else {
                found = try tree.topmost(matches)
            }
        } catch {
            throw GuardFailure(
                error.isPermission ? .permission : .other, "the cgroups cannot be read (\(error))",
                remedy: "run as root on the host")
        }
        if kind == .host, found.contains(where: { !$0.isMachineRoot }) {
            throw GuardFailure(
                .unsupported, "this cgroup namespace shows a part of the machine, so --host would not be the host",
                remedy: "run it on the host, or in the host's cgroup namespace (podman run --cgroupns=host); "
                    + "or guard / of this part with --cgroup /")
        }
        guard !found.isEmpty else { throw absence }
        return found
    }

    private var absence: GuardFailure {
        GuardFailure(
            .other, "there is no cgroup for \(UntrustedText(words).escaped), so there is nothing to attach to",
            remedy: "look for it with systemd-cgls")
    }
}

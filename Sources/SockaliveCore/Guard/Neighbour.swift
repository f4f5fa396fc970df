import SystemPackage

/// Another sock_ops program, at a guard's cgroup or above it.
package struct Neighbour: Equatable, Sendable {
    package let id: UInt32
    /// nil: it has none, or it may not be asked.
    package let name: UntrustedText?
    /// Where it is attached.
    package let cgroup: String
    let mode: BPF.Attached.Mode

    private init(id: UInt32, cgroup: CGroup, mode: BPF.Attached.Mode) {
        self.id = id
        self.cgroup = cgroup.path
        self.mode = mode
        let name = (try? BPF.program(id: id)).flatMap { try? BPF.programInfo($0) }?.name
        self.name = name.flatMap { $0.bytes.isEmpty ? nil : $0 }
    }

    /// `multi`, `override` or `none`, as bpftool shows it.
    package var attachMode: String { mode.rawValue }

    /// `program 12 (cil_sock_ops) at /`
    package var description: String {
        "program \(id)\(name.map { " (\($0.escaped))" } ?? "") at \(UntrustedText(cgroup).escaped)"
    }

    /// The programs at a cgroup and above it.
    static func all(at cgroup: CGroup, _ hierarchy: CGroupHierarchy) throws(Errno) -> [Neighbour] {
        var result: [Neighbour] = []
        for cgroup in [cgroup] + (try hierarchy.ancestors(of: cgroup)) {
            let attached = try BPF.attached(to: cgroup.descriptor)
            result += attached.programs.map { Neighbour(id: $0, cgroup: cgroup, mode: attached.mode) }
        }
        return result
    }

    /// The program beside which another cannot run. The kernel looks at the cgroup, and at its nearest ancestor with
    /// programs (kernel/bpf/cgroup.c, hierarchy_allows_attach). Where that one has BPF_F_ALLOW_OVERRIDE the kernel
    /// would let another in, and would no longer run the ancestor's program: somebody else's is not replaced.
    ///
    /// - Parameter own: a program that is no obstacle to itself.
    static func obstacle(
        at cgroup: CGroup, _ hierarchy: CGroupHierarchy, except own: UInt32? = nil
    ) throws(Errno) -> Neighbour? {
        try all(at: cgroup, hierarchy).first { $0.id != own }.flatMap { $0.mode == .multi ? nil : $0 }
    }

    var failure: GuardFailure {
        let reason =
            mode == .override
            ? "was attached with BPF_F_ALLOW_OVERRIDE: a guard would put it out of work below \(UntrustedText(cgroup).escaped)"
            : "was attached without BPF_F_ALLOW_MULTI, and lets no other run beside or below it"
        return GuardFailure(
            .other, "\(description) \(reason)",
            remedy: "its owner can attach it with BPF_F_ALLOW_MULTI (bpftool cgroup tree shows it); "
                + "or use sockalive watch")
    }
}

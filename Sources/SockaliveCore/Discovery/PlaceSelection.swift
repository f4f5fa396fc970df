/// Where processes run: in which unit, container, pod or cgroup. An empty list asks nothing; of a list, one has to hold.
package struct PlaceSelection: Hashable, Sendable {
    package var units: [UnitName]
    package var containers: [ContainerSelector]
    package var pods: [PodSelector]
    package var cgroups: [CGroupGlob]

    package init(
        units: [UnitName] = [], containers: [ContainerSelector] = [], pods: [PodSelector] = [],
        cgroups: [CGroupGlob] = []
    ) {
        self.units = units
        self.containers = containers
        self.pods = pods
        self.cgroups = cgroups
    }

    package var isEmpty: Bool { units.isEmpty && containers.isEmpty && pods.isEmpty && cgroups.isEmpty }

    /// Whether a process in that cgroup may be meant: names of containers and pods are not looked up.
    func mayMean(_ path: CGroupPath) -> Bool {
        guard units.isEmpty || path.unit.map({ units.contains($0.value) }) ?? false else { return false }
        guard
            containers.isEmpty
                || path.container.map({ part in containers.contains { $0.mayMean(part.value) } }) ?? false
        else { return false }
        guard pods.isEmpty || path.pod != nil else { return false }
        return cgroups.isEmpty || cgroups.contains { $0.matches(path) }
    }

    /// Whether a cgroup below may be meant, where this one is not.
    func mayMeanBelow(_ path: CGroupPath) -> Bool {
        if !units.isEmpty, let unit = path.unit, !units.contains(unit.value) { return false }
        // The outermost container counts, and a pod lies above it.
        return path.container == nil || (containers.isEmpty && pods.isEmpty) || !cgroups.isEmpty
    }
}

/// A container, by its name, or by its ID from 12 digits on.
package struct ContainerSelector: Hashable, Sendable, CustomStringConvertible {
    package let description: String
    /// Whether it may be an ID. A name may look like one, too.
    package let isID: Bool

    private static let minDigits = 12

    package init(_ text: String) {
        description = text
        isID =
            text.utf8.count >= Self.minDigits && text.utf8.count <= ContainerID.length
            && text.utf8.allSatisfy(\.isLowercaseHexadecimal)
    }

    func isID(of id: ContainerID) -> Bool { isID && !id.isName && id.text.hasPrefix(description) }

    /// A name may be anything, so only what is surely another container is left out.
    func mayMean(_ id: ContainerID) -> Bool { id.isName ? id.text == description : true }
}

/// A pod of Kubernetes or podman, by its name, by `NAMESPACE/NAME`, or by its UID.
package struct PodSelector: Hashable, Sendable, CustomStringConvertible {
    package let description: String
    let namespace: String?
    let name: String

    private static let minDigits = 12

    /// nil if a part is empty, or there are more than two.
    package init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count <= 2, !parts.contains("") else { return nil }
        description = text
        namespace = parts.count == 2 ? parts[0] : nil
        name = parts[parts.count - 1]
    }

    /// The UID of a Kubernetes pod, or the ID of a podman pod, from 12 digits on.
    func isID(of id: PodID) -> Bool {
        namespace == nil && name.utf8.count >= Self.minDigits && id.text.hasPrefix(name)
    }

    func isName(_ other: PodName) -> Bool {
        guard other.name.bytes.elementsEqual(name.utf8) else { return false }
        return namespace.map { namespace in other.namespace?.bytes.elementsEqual(namespace.utf8) ?? false } ?? true
    }
}

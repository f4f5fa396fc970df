/// The control group of a process (cgroups(7)), and what its path tells: the systemd unit, the container, the pod.
/// Pure: bytes in, values out.
///
/// A user names what lies below `user@UID.service`, and below every other folder that belongs to them. So a name counts
/// together with the user who could have given it: ``owner(of:)``.
package struct CGroupPath: Hashable, Sendable {
    /// Something that a component of the path stands for.
    package struct Part<Value: Hashable & Sendable>: Hashable, Sendable {
        package let value: Value
        /// How many components lead to it, its own included.
        package let depth: Int
    }

    /// As the kernel shows it, with `/..` before it where the reader has a cgroup namespace of its own
    /// (cgroup_namespaces(7)).
    package let text: UntrustedText
    /// Without those.
    let components: [[UInt8]]

    /// The first component that is no slice, as systemd judges (cg_path_get_unit in src/basic/cgroup-util.c); nil if
    /// that is no unit.
    package let unit: Part<UnitName>?
    /// The outermost one. What lies below, the container names itself.
    package let container: Part<ContainerID>?
    /// The one that the container, or the process, lies in.
    package let pod: Part<PodID>?

    /// - Parameter path: absolute. The kernel allows every byte in a name but a slash and a line feed.
    package init(_ path: some Sequence<UInt8>) {
        text = UntrustedText(path)
        let all = text.bytes.split(separator: UInt8(ascii: "/")).map(Array.init)
        let components = Array(all.drop { $0.elementsEqual("..".utf8) })
        self.components = components
        unit = Self.unit(components)
        let container = Self.container(components)
        self.container = container
        pod = Self.pod(components.prefix(container.map { $0.depth - 1 } ?? components.count))
    }

    /// The cgroup of `/proc/PID/cgroup`: the path in the one hierarchy of version 2; if that is the root, or is missing,
    /// the path in systemd's hierarchy of version 1.
    ///
    /// nil if neither is there.
    package init?(procfs text: some Collection<UInt8>) {
        var paths: [[UInt8]?] = [nil, nil]
        for line in text.split(separator: UInt8(ascii: "\n")) {
            // hierarchy-ID:controllers:path, and the path may have colons.
            let fields = line.split(separator: UInt8(ascii: ":"), maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3, fields[2].first == UInt8(ascii: "/") else { continue }
            let isUnified = fields[0].elementsEqual("0".utf8) && fields[1].isEmpty
            if isUnified { paths[0] = Array(fields[2]) }
            if fields[1].elementsEqual("name=systemd".utf8) { paths[1] = Array(fields[2]) }
        }
        let known = paths.compactMap(\.self)
        guard let path = known.first(where: { $0.count > 1 }) ?? known.first else { return nil }
        self.init(path)
    }

    /// The path of the first components: for instance of a container.
    package func path(depth: Int) -> UntrustedText {
        UntrustedText([UInt8(ascii: "/")] + components.prefix(depth).joined(separator: [UInt8(ascii: "/")]))
    }

    /// The user in whose manager (`user@UID.service`) the process runs; nil if it runs in none.
    package var managedUser: UInt32? { unit?.value.managedUser }

    /// The user who could name a component, as far as the path tells; nil stands for root.
    ///
    /// Other folders than that of a user's manager may belong to users, too (`Delegate=`, systemd.resource-control(5)).
    package func owner(ofDepth depth: Int) -> UInt32? {
        guard let unit, depth > unit.depth else { return nil }
        return unit.value.managedUser
    }
}

extension CGroupPath {
    private static func unit(_ components: [[UInt8]]) -> Part<UnitName>? {
        for (index, component) in components.enumerated() {
            guard let name = UnitName(component: component) else { return nil }
            if !name.isSlice { return Part(value: name, depth: index + 1) }
        }
        return nil
    }

    private static func container(_ components: [[UInt8]]) -> Part<ContainerID>? {
        for (index, component) in components.enumerated() {
            let next = index + 1 < components.count ? components[index + 1] : nil
            if component.isPodmanPod(in: components[..<index]) { continue }
            if let id = ContainerID(component: component, next: next) { return Part(value: id, depth: index + 1) }
        }
        return nil
    }

    private static func pod(_ components: ArraySlice<[UInt8]>) -> Part<PodID>? {
        for (index, component) in components.enumerated().reversed() {
            if component.isPodmanPod(in: components[..<index]) {
                return Part(value: PodID(text: String(decoding: component, as: UTF8.self)), depth: index + 1)
            }
            if let id = PodID(component: component) { return Part(value: id, depth: index + 1) }
        }
        return nil
    }
}

/// The ID of a container, as its cgroup tells it.
package struct ContainerID: Hashable, Sendable {
    package enum Engine: String, Hashable, Sendable {
        case podman, docker, containerd, crio, nspawn, lxc
        /// 64 digits and nothing else: docker's or containerd's, with their driver `cgroupfs`.
        case other
    }

    package let engine: Engine
    /// 64 hexadecimal digits, or the name that the cgroup itself bears (systemd-nspawn, LXC).
    package let text: String

    package init(engine: Engine, text: String) {
        self.engine = engine
        self.text = text
    }

    /// Whether the cgroup bears the container's name, and there is no other ID.
    package var isName: Bool { engine == .nspawn || engine == .lxc }

    private static let prefixes: [(text: StaticString, engine: Engine)] = [
        ("libpod-payload-", .podman), ("libpod-", .podman), ("docker-", .docker), ("cri-containerd-", .containerd),
        ("nerdctl-", .containerd), ("crio-", .crio), ("", .other),
    ]

    static let length = 64

    /// The cgroup of a monitor, such as `libpod-conmon-…`, has another prefix, and is none.
    ///
    /// - Parameter next: the component below.
    init?(component: [UInt8], next: [UInt8]?) {
        if let name = Self.machine(component, next) {
            self = name
            return
        }
        let name = component.withoutSuffix(".scope")
        guard name.count >= Self.length else { return nil }
        let prefix = name.dropLast(Self.length)
        let digits = name.suffix(Self.length)
        guard digits.allSatisfy(\.isLowercaseHexadecimal),
            let known = Self.prefixes.first(where: { prefix.elementsEqual($0.text.bytes) })
        else { return nil }
        self.init(engine: known.engine, text: String(decoding: digits, as: UTF8.self))
    }

    /// `machine-NAME.scope/payload` and `systemd-nspawn@NAME.service/payload` of systemd-nspawn(1), whose own process is
    /// in `supervisor`; `lxc.payload.NAME` of lxc.container.conf(5).
    private static func machine(_ component: [UInt8], _ next: [UInt8]?) -> Self? {
        if component.starts(with: "lxc.payload.".utf8), component.count > 12 {
            return Self(engine: .lxc, text: String(decoding: component.dropFirst(12), as: UTF8.self))
        }
        guard let next, next.elementsEqual("payload".utf8) else { return nil }
        for (prefix, suffix) in [("machine-", ".scope"), ("systemd-nspawn@", ".service")] {
            guard component.starts(with: prefix.utf8), component.hasSuffix(suffix) else { continue }
            let name = component.dropFirst(prefix.utf8.count).dropLast(suffix.utf8.count)
            if !name.isEmpty { return Self(engine: .nspawn, text: String(decoding: name.unescapedUnit, as: UTF8.self)) }
        }
        return nil
    }
}

/// The ID of a pod, as its cgroup tells it: the UID of a Kubernetes pod with dashes, or the 64 digits of a podman pod.
package struct PodID: Hashable, Sendable {
    package let text: String

    package init(text: String) {
        self.text = text
    }

    /// `pod<uid>` or `kubepods-burstable-pod<uid>.slice` of the kubelet, which writes underscores for the dashes where
    /// systemd makes the folder; `machine-libpod_pod_<64 digits>.slice` of podman.
    init?(component: [UInt8]) {
        let name = component.withoutSuffix(".slice")
        let digits = name.suffix(ContainerID.length)
        if name.count > ContainerID.length, digits.allSatisfy(\.isLowercaseHexadecimal),
            name.dropLast(ContainerID.length).hasSuffix("libpod_pod_")
        {
            self.init(text: String(decoding: digits, as: UTF8.self))
            return
        }
        for length in [36, 32] where name.count >= length + 3 {
            let prefix = name.dropLast(length)
            guard prefix.hasSuffix("pod"),
                prefix.count == 3 || prefix.starts(with: "kubepods".utf8)
                    || Array(prefix).contains("-kubepods-")
            else { continue }
            let uid = name.suffix(length).map { $0 == UInt8(ascii: "_") ? UInt8(ascii: "-") : $0 }
            if length == 36 ? uid.isUUID : uid.allSatisfy(\.isLowercaseHexadecimal) {
                self.init(text: String(decoding: uid, as: UTF8.self))
                return
            }
        }
        return nil
    }
}

extension [UInt8] {
    /// With podman's driver `cgroupfs`, a pod is a folder of 64 digits in that of all of podman's containers
    /// (libpod/runtime_pod_linux.go).
    fileprivate func isPodmanPod(in parents: ArraySlice<[UInt8]>) -> Bool {
        count == ContainerID.length && parents.last.map { $0.elementsEqual("libpod_parent".utf8) } ?? false
            && allSatisfy(\.isLowercaseHexadecimal)
    }

    /// 8, 4, 4, 4 and 12 digits (RFC 9562).
    fileprivate var isUUID: Bool {
        let parts = split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        return parts.map(\.count) == [8, 4, 4, 4, 12] && parts.joined().allSatisfy(\.isLowercaseHexadecimal)
    }

    fileprivate func contains(_ text: StaticString) -> Bool {
        indices.contains { self[$0...].starts(with: text.bytes) }
    }
}

extension BidirectionalCollection<UInt8> {
    fileprivate func withoutSuffix(_ suffix: StaticString) -> SubSequence {
        let count = suffix.utf8CodeUnitCount
        return self.suffix(count).elementsEqual(suffix.bytes) ? dropLast(count) : self[...]
    }

    fileprivate func hasSuffix(_ suffix: String) -> Bool { self.suffix(suffix.utf8.count).elementsEqual(suffix.utf8) }

    /// systemd writes each byte that a name of a unit may not have as `\xNN`, and a slash as a dash (systemd-escape(1)).
    fileprivate var unescapedUnit: [UInt8] {
        var bytes: [UInt8] = []
        var rest = self[...]
        while let first = rest.popFirst() {
            if first == UInt8(ascii: "\\"), rest.first == UInt8(ascii: "x"),
                let byte: UInt8 = rest.dropFirst().prefix(2).hexadecimal()
            {
                bytes.append(byte)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(first == UInt8(ascii: "-") ? UInt8(ascii: "/") : first)
            }
        }
        return bytes
    }
}

extension StaticString {
    fileprivate var bytes: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(start: utf8Start, count: utf8CodeUnitCount)
    }
}

extension UInt8 {
    var isLowercaseHexadecimal: Bool {
        switch self {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"): true
        default: false
        }
    }
}

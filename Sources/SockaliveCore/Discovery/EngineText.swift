import Glibc

/// What the command line of a container's monitor tells (conmon(8)). Pure.
struct MonitorArguments: Equatable {
    let id: String
    let name: [UInt8]?
    /// The folder of the container's configuration.
    let bundle: [UInt8]?

    /// nil if it is no monitor's.
    init?(_ commandLine: [UInt8]) {
        let words = commandLine.split(separator: 0, omittingEmptySubsequences: false).map(Array.init)
        guard let program = words.first, program.baseName.elementsEqual("conmon".utf8) else { return nil }
        var values: [String: [UInt8]] = [:]
        var index = 1
        while index + 1 < words.count {
            let option = words[index]
            // What follows these is meant for another program.
            let isForOther = option.starts(with: "--exit-command".utf8) || option.starts(with: "--runtime-arg".utf8)
            let letter = Self.options.first {
                option.elementsEqual($0.short.utf8) || option.elementsEqual($0.long.utf8)
            }
            if isForOther {
                index += option.contains(UInt8(ascii: "=")) ? 1 : 2
            } else if let letter {
                values[letter.short] = values[letter.short] ?? words[index + 1]
                index += 2
            } else {
                index += 1
            }
        }
        guard let id = values["-c"], id.count == ContainerID.length, id.allSatisfy(\.isLowercaseHexadecimal) else {
            return nil
        }
        self.id = String(decoding: id, as: UTF8.self)
        name = values["-n"]
        bundle = values["-b"]
    }

    private static let options = [("-c", "--cid"), ("-n", "--name"), ("-b", "--bundle")].map { (short: $0, long: $1) }

    /// The storage that the bundle is in: `STORAGE/DRIVER-containers/ID/userdata`.
    var storage: [UInt8]? {
        guard let bundle, bundle.first == UInt8(ascii: "/") else { return nil }
        let parts = bundle.split(separator: UInt8(ascii: "/"))
        guard parts.count > 3, parts[parts.count - 2].elementsEqual(id.utf8) else { return nil }
        return [UInt8(ascii: "/")] + parts.dropLast(3).joined(separator: [UInt8(ascii: "/")])
    }

    var containerName: ContainerName? { name.map { ContainerName(engineName: $0[...]) } }
}

extension ContainerName {
    /// A name that a container has in its engine: of a pod's container `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`
    /// (CRI-O, cri-dockerd).
    init(engineName bytes: ArraySlice<UInt8>) {
        let parts = bytes.split(separator: UInt8(ascii: "_"), omittingEmptySubsequences: false)
        guard parts.count == 6, parts[0].elementsEqual("k8s".utf8) else {
            self.init(name: UntrustedText(bytes))
            return
        }
        self.init(
            name: UntrustedText(parts[1]),
            pod: PodName(name: UntrustedText(parts[2]), namespace: UntrustedText(parts[3])))
    }

    /// nil if the annotations tell no name.
    init?(annotations: JSONValue?) {
        guard let annotations else { return nil }
        func text(_ keys: [String]) -> UntrustedText? {
            for key in keys {
                if let bytes = annotations[key]?.bytes, !bytes.isEmpty { return UntrustedText(bytes) }
            }
            return nil
        }
        let pod = text(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"])
        let namespace = text(["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"])
        name = text(["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"])
        self.pod = pod.map { PodName(name: $0, namespace: namespace) }
        if name == nil && pod == nil { return nil }
    }
}

/// Names of the files that the kubelet makes for each container and each pod. Pure.
enum KubeletNames {
    /// `NAMESPACE_NAME_UID`; neither part has an underscore (RFC 1123 labels).
    static func pod(_ name: [UInt8]) -> (uid: String, PodName)? {
        let parts = name.split(separator: UInt8(ascii: "_"), omittingEmptySubsequences: false)
        guard parts.count == 3 else { return nil }
        return (
            String(decoding: parts[2], as: UTF8.self),
            PodName(name: UntrustedText(parts[1]), namespace: UntrustedText(parts[0]))
        )
    }

    /// `POD_NAMESPACE_CONTAINER-ID.log`
    static func container(_ name: [UInt8]) -> (id: String, ContainerName)? {
        let parts = name.split(separator: UInt8(ascii: "_"), omittingEmptySubsequences: false)
        guard parts.count == 3, let last = parts.last, last.suffix(4).elementsEqual(".log".utf8) else { return nil }
        let stem = last.dropLast(4)
        let id = stem.suffix(ContainerID.length)
        guard stem.count > ContainerID.length + 1, id.allSatisfy(\.isLowercaseHexadecimal) else { return nil }
        let pod = PodName(name: UntrustedText(parts[0]), namespace: UntrustedText(parts[1]))
        return (
            String(decoding: id, as: UTF8.self),
            ContainerName(name: UntrustedText(stem.dropLast(ContainerID.length + 1)), pod: pod)
        )
    }
}

/// What podman and CRI-O keep of their containers and pods. Pure.
enum ContainerStore {
    /// The first name of each container in `containers.json`, by its ID.
    static func names(_ text: [UInt8]) -> [String: UntrustedText] {
        var names: [String: UntrustedText] = [:]
        for container in JSONValue(text)?.elements ?? [] {
            guard let id = container["id"]?.bytes, id.count == ContainerID.length,
                let name = container["names"]?.elements.first?.bytes
            else { continue }
            names[String(decoding: id, as: UTF8.self)] = UntrustedText(name)
        }
        return names
    }

    /// The name in the record of a pod in podman's database, BoltDB or SQLite: both hold the record as the JSON text of
    /// a `PodConfig`, which begins with ID and name (libpod/pod.go). Short enough to lie within one page.
    static func podName(of id: String, in database: [UInt8]) -> UntrustedText? {
        let mark = Array("{\"id\":\"\(id)\",\"name\":".utf8)
        return database.withUnsafeBytes { bytes -> UntrustedText? in
            var start = 0
            while let found = bytes.position(of: mark, from: start) {
                let rest = bytes[(found + mark.count)...].prefix(maxRecord)
                if let end = rest.dropFirst().firstIndex(of: UInt8(ascii: "\"")), rest.first == UInt8(ascii: "\""),
                    let name = JSONValue(rest[...end])?.bytes
                {
                    return UntrustedText(name)
                }
                start = found + 1
            }
            return nil
        }
    }

    private static let maxRecord = 1024
}

extension UnsafeRawBufferPointer {
    fileprivate func position(of mark: [UInt8], from start: Int) -> Int? {
        guard let base = baseAddress, let first = mark.first else { return nil }
        var start = start
        while start + mark.count <= count {
            guard let found = memchr(base + start, Int32(first), count - mark.count + 1 - start) else { return nil }
            let position = UnsafeRawPointer(found) - base
            if memcmp(found, mark, mark.count) == 0 { return position }
            start = position + 1
        }
        return nil
    }
}

/// The name of a systemd unit (systemd.unit(5)). Pure.
package struct UnitName: Hashable, Sendable, CustomStringConvertible {
    package let description: String

    /// UNIT_NAME_MAX of systemd's src/basic/unit-name.h, with the final zero byte.
    private static let maxLength = 255
    private static let types: Set<Substring> = [
        "service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope",
    ]

    /// A component of a cgroup path. systemd puts an underscore before a name that the kernel could take for a file of
    /// its own, such as `cgroup.service` (cg_escape in src/basic/cgroup-util.c).
    ///
    /// nil if it is no valid name of a unit, or that of a template.
    init?(component: some Collection<UInt8>) {
        let name = component.first == UInt8(ascii: "_") ? component.dropFirst() : component[...]
        guard let type = Self.type(of: name), Self.types.contains(type) else { return nil }
        description = String(decoding: name, as: UTF8.self)
    }

    /// As a person writes it: `agent` means `agent.service`, as systemctl(1) has it.
    ///
    /// nil if it is no valid name of a unit, or that of a template.
    package init?(written text: String) {
        let hasType =
            text.split(separator: ".", omittingEmptySubsequences: false).dropFirst().last
            .map(Self.types.contains) ?? false
        let name = hasType ? text : text + ".service"
        guard Self.type(of: name.utf8) != nil else { return nil }
        description = name
    }

    package var isSlice: Bool { description.hasSuffix(".slice") && !description.contains("@") }

    /// The user whose manager the unit is: 1000 for `user@1000.service`. What lies below its cgroup, that user names.
    package var managedUser: UInt32? {
        let (prefix, suffix) = ("user@", ".service")
        guard description.hasPrefix(prefix), description.hasSuffix(suffix) else { return nil }
        return description.utf8.dropFirst(prefix.count).dropLast(suffix.count).decimal()
    }

    /// What stands behind the last dot of a valid name (unit_name_is_valid in src/basic/unit-name.c). An instance
    /// follows the first `@`; a template has none.
    private static func type(of name: some Collection<UInt8>) -> Substring? {
        guard name.count <= maxLength, name.allSatisfy(isValid) else { return nil }
        let text = Substring(decoding: name, as: UTF8.self)
        guard let dot = text.lastIndex(of: "."), dot > text.startIndex else { return nil }
        let stem = text[..<dot]
        if let sign = stem.firstIndex(of: "@") {
            guard sign > stem.startIndex, stem.index(after: sign) < stem.endIndex else { return nil }
        }
        return text[text.index(after: dot)...]
    }

    private static func isValid(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"):
            true
        default: ":-_.\\@".utf8.contains(byte)
        }
    }
}

/// A pattern for cgroup paths, as `--cgroup` has it: `*`, `?` and `[…]` within a component. Pure.
///
/// A backslash stands for itself, because systemd writes `\x2d` in its names: a path can be copied as it is.
package struct CGroupGlob: Hashable, Sendable, CustomStringConvertible {
    package let description: String
    private let components: [[UInt8]]

    /// nil without any component: every process is in the root.
    package init?(_ text: String) {
        let components = text.utf8.split(separator: UInt8(ascii: "/")).map(Array.init)
        guard !components.isEmpty, !components.contains(where: { $0.elementsEqual("..".utf8) }) else { return nil }
        description = text
        self.components = components
    }

    /// How many components a path needs to match.
    package var depth: Int { components.count }

    /// Whether the path, or a parent of it, matches.
    package func matches(_ path: CGroupPath) -> Bool {
        path.components.count >= components.count
            && zip(components, path.components).allSatisfy { Self.matches($0[...], $1[...]) }
    }

    /// Whether a path below may match, where this one does not.
    package func mayMatchBelow(_ path: CGroupPath) -> Bool {
        path.components.count < components.count
            && zip(components, path.components).allSatisfy { Self.matches($0[...], $1[...]) }
    }

    /// Goes back to the last `*` only, so that no name makes it slow.
    private static func matches(_ pattern: ArraySlice<UInt8>, _ name: ArraySlice<UInt8>) -> Bool {
        var (pattern, name) = (pattern, name)
        var retry: (pattern: ArraySlice<UInt8>, name: ArraySlice<UInt8>)?
        while true {
            if pattern.first == UInt8(ascii: "*") {
                pattern.removeFirst()
                retry = (pattern, name)
                continue
            }
            if let byte = name.first, let rest = rest(of: pattern, behind: byte) {
                pattern = rest
                name.removeFirst()
                continue
            }
            if name.isEmpty && pattern.isEmpty { return true }
            guard let last = retry, !last.name.isEmpty else { return false }
            retry = (last.pattern, last.name.dropFirst())
            (pattern, name) = (last.pattern, last.name.dropFirst())
        }
    }

    /// The rest of the pattern behind what matches one byte; nil if the byte does not match.
    private static func rest(of pattern: ArraySlice<UInt8>, behind byte: UInt8) -> ArraySlice<UInt8>? {
        guard let first = pattern.first else { return nil }
        let rest = pattern.dropFirst()
        if first == UInt8(ascii: "?") { return rest }
        if first == UInt8(ascii: "["), let (set, rest) = set(rest) { return set(byte) ? rest : nil }
        return first == byte ? rest : nil
    }

    /// `abc]`, `a-z]`, `!abc]`. A `]` that comes first is one of the set. nil where nothing closes it.
    private static func set(_ text: ArraySlice<UInt8>) -> ((UInt8) -> Bool, ArraySlice<UInt8>)? {
        let isNegated = text.first == UInt8(ascii: "!") || text.first == UInt8(ascii: "^")
        let body = isNegated ? text.dropFirst() : text
        guard let end = body.dropFirst().firstIndex(of: UInt8(ascii: "]")) else { return nil }
        let bytes = Array(body[..<end])
        func contains(_ byte: UInt8) -> Bool {
            var index = 0
            while index < bytes.count {
                if index + 2 < bytes.count, bytes[index + 1] == UInt8(ascii: "-") {
                    if bytes[index] <= byte && byte <= bytes[index + 2] { return true }
                    index += 3
                } else {
                    if bytes[index] == byte { return true }
                    index += 1
                }
            }
            return false
        }
        return ({ contains($0) != isNegated }, body[(end + 1)...])
    }
}

import Glibc

/// The version of a kernel by its release, such as `6.1.0-44-amd64`.
package struct KernelVersion: Equatable, Sendable {
    let text: UntrustedText
    /// nil if the text does not begin with two numbers.
    private let number: Number?

    private struct Number: Equatable, Sendable {
        let major, minor: Int
    }

    init(_ bytes: some Sequence<UInt8>) {
        let bytes = Array(bytes)
        text = UntrustedText(bytes)
        let parts = bytes.split(separator: UInt8(ascii: "."), maxSplits: 2, omittingEmptySubsequences: false)
        let major: Int? = parts.first?.decimal()
        let minor: Int? = parts.count > 1 ? parts[1].prefix { (0x30...0x39).contains($0) }.decimal() : nil
        number = major.flatMap { major in minor.map { Number(major: major, minor: $0) } }
    }

    /// The running kernel (uname(2)).
    package static let running: KernelVersion = {
        var name = utsname()
        guard uname(&name) == 0 else { return KernelVersion([]) }
        return withUnsafeBytes(of: &name.release) { KernelVersion($0.prefix { $0 != 0 }) }
    }()

    /// Whether it is older than a version; false if it is unknown. A distribution may have taken a call back into an
    /// older kernel, so this only explains why a call is missing.
    func isBefore(_ major: Int, _ minor: Int) -> Bool {
        number.map { ($0.major, $0.minor) < (major, minor) } ?? false
    }

    /// Older than every kernel that this program was tried on. The first one that has all that the ptrace method
    /// cannot do without, and runs on a supported distribution, is that of RHEL 7.
    package var isUnsupported: Bool { isBefore(3, 10) }

    package var escaped: String { text.escaped.isEmpty ? "unknown" : text.escaped }
}

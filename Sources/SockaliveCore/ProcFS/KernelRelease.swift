/// The release of the running kernel (uname(2)), such as `6.1.0-44-amd64`.
struct KernelRelease: Equatable, Sendable {
    let text: UntrustedText
    /// nil if the text does not begin with two numbers.
    private let version: Version?

    private struct Version: Equatable, Sendable {
        let major, minor: Int
    }

    init(_ bytes: some Sequence<UInt8>) {
        let bytes = Array(bytes)
        text = UntrustedText(bytes)
        let parts = bytes.split(separator: UInt8(ascii: "."), maxSplits: 2, omittingEmptySubsequences: false)
        let major: Int? = parts.first?.decimal()
        let minor: Int? = parts.count > 1 ? parts[1].prefix { (0x30...0x39).contains($0) }.decimal() : nil
        version = major.flatMap { major in minor.map { Version(major: major, minor: $0) } }
    }

    init(procfs: ProcFS) {
        self.init((procfs.text("sys/kernel/osrelease") ?? []).dropTrailingNewlines)
    }

    /// Whether it is older than a version; false if it is unknown. A distribution may have taken a call back into an
    /// older kernel, so this only explains why a call is missing.
    func isBefore(_ major: Int, _ minor: Int) -> Bool {
        version.map { ($0.major, $0.minor) < (major, minor) } ?? false
    }

    var escaped: String { text.escaped.isEmpty ? "unknown" : text.escaped }
}

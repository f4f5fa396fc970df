import Glibc
import SockaliveCore
import SystemPackage

/// A program of the system that the demo builds its network with.
package struct Tool {
    let path: String

    static func ip() throws -> Tool { try all()[0] }
    static func nft() throws -> Tool { try all()[1] }

    /// Finds the programs, or says in one line which Debian packages hold those that are missing.
    @discardableResult
    package static func all() throws -> [Tool] {
        let wanted = [(name: "ip", package: "iproute2"), (name: "nft", package: "nftables")]
        let found = wanted.map { search($0.name) }
        let missing = zip(wanted, found).filter { $0.1 == nil }.map(\.0)
        guard missing.isEmpty else {
            let names = missing.map(\.name).joined(separator: " and ")
            let packages = missing.map(\.package).joined(separator: " ")
            throw DemoFailure(
                "\(names) not found; on Debian or Ubuntu: apt-get install \(packages)", .unsupported)
        }
        return found.compactMap { $0 }.map(Tool.init)
    }

    /// Looks through PATH, and for each `…/bin` there also in the `…/sbin` beside it: Debian's
    /// PATH for ordinary users leaves out /usr/sbin, where nft lies.
    private static func search(_ name: String) -> String? {
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        for folder in path.split(separator: ":") {
            let beside = folder.hasSuffix("/bin") ? [folder.dropLast(3) + "sbin"] : []
            for candidate in [folder] + beside where access("\(candidate)/\(name)", X_OK) == 0 {
                return "\(candidate)/\(name)"
            }
        }
        return nil
    }

    /// Runs the program with `input` on its standard input; what it printed, or a failure with its first line.
    @discardableResult
    func run(_ arguments: [String], input: String = "") throws -> String {
        let (ours, theirs) = try Channel.pair()
        let child = try ChildProcess.spawn(
            path, [path] + arguments,
            descriptors: [(0, theirs.descriptor), (1, theirs.descriptor), (2, theirs.descriptor)])
        theirs.close()
        defer { ours.close() }
        try ours.send(input)
        ours.finishSending()
        let output = ours.readToEnd()
        guard child.wait() == .exited(0) else {
            let reason = output.split(separator: "\n").first ?? "no reason given"
            throw DemoFailure("\(path): \(reason)", .unsupported)
        }
        return output
    }
}

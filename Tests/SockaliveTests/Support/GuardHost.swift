import Foundation
import Testing

/// A mount namespace and a network namespace of their own, and a cgroup of their own in this machine's hierarchy. So
/// what is pinned and attached here ends with the test.
final class GuardHost {
    private let keeper: Child
    /// From the root of the hierarchy.
    let path: String

    /// nil: no cgroup2 hierarchy is mounted.
    static let mount: String? = {
        let mounts = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        for line in mounts.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard let dash = fields.firstIndex(of: "-"), fields[3] == "/", fields[dash + 1] == "cgroup2" else {
                continue
            }
            return String(fields[4])
        }
        return nil
    }()

    /// Why there are no guards on this machine; nil where there are.
    static let absence: String? = {
        guard Machine.isRoot else { return "guards take root" }
        guard mount != nil else { return "no cgroup2 file system is mounted here" }
        guard Machine.makesNamespaces, Machine.has("ip") else { return "no namespaces, or ip (iproute2) is missing" }
        guard let host = try? GuardHost() else { return "no cgroup can be made here" }
        guard let attempt = try? host.guarding("on", "--cgroup", host.path), attempt.status == 0 else {
            return "no BPF program can be attached to a cgroup here"
        }
        return nil
    }()

    static var isPossible: Bool { absence == nil }

    private nonisolated(unsafe) static var count = 0

    init() throws {
        Self.count += 1
        path = "/sockalive-tests-\(ProcessInfo.processInfo.processIdentifier)-\(Self.count).slice"
        keeper = try Child([
            "unshare", "--net", "--mount", "sh", "-c",
            "umount -l /sys/fs/bpf 2>/dev/null; ip link set lo up && echo open && exec cat",
        ])
        _ = try keeper.words(after: "open", Deadline(.seconds(10)))
        try make("")
    }

    deinit {
        keeper.kill()
        let folders = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
        for name in folders.sorted(by: >) { rmdir("\(folder)/\(name)") }
        rmdir(folder)
    }

    private var root: String { Self.mount ?? "/sys/fs/cgroup" }

    /// Of its cgroup, in the file system.
    var folder: String { root + path }

    @discardableResult
    func make(_ name: String) throws -> String {
        let made = "\(folder)\(name.isEmpty ? "" : "/\(name)")"
        try #require(mkdir(made, 0o755) == 0 || errno == EEXIST)
        return made
    }

    var launcher: [String] { ["nsenter", "--target", "\(keeper.pid)", "--mount", "--net"] }

    /// `sockalive guard …`.
    func guarding(_ arguments: String...) throws -> Program {
        try Program.sockalive(["guard"] + arguments, launcher: launcher)
    }

    @discardableResult
    func run(_ command: [String]) throws -> Program {
        try Program.run(launcher + command)
    }

    /// A process that sleeps in a cgroup of this host.
    func sleeper(in name: String) throws -> Child {
        let child = try Child(
            launcher + ["sh", "-c", "echo 0 >'\(folder)/\(name)/cgroup.procs' && echo in && exec cat"])
        _ = try child.words(after: "in", Deadline(.seconds(10)))
        return child
    }

    /// What another program attaches at a cgroup of this host.
    ///
    /// - Parameter mode: nothing, `--multi` or `--override`.
    func attachNeighbour(_ mode: String..., at name: String = "") throws {
        let made = try make(name)
        let attached = try run([TestProgram.path("sock-ops-keepalive")] + mode + [made, "true"])
        try #require(attached.status == 0, "\(attached.output)")
    }

    /// The settings of both ends of a connection, as getsockopt(2) answers them: `1 600 60 50 0`.
    struct Pair: Equatable {
        let client: String
        let server: String
    }

    enum Family: String, CaseIterable {
        case ipv4, ipv6, mapped
    }

    /// - Parameter own: the end that turns keepalive on by itself: `client`, `listener` or `none`.
    func connect(
        _ family: Family = .ipv4, from client: Int = 0, to server: Int = 0, own: String = "none",
        in cgroup: String? = ""
    ) throws -> Pair {
        let place = cgroup.map { "\(folder)\($0.isEmpty ? "" : "/\($0)")" } ?? "-"
        let program = try run([
            TestProgram.path("connect-pair"), place, family.rawValue, "\(client)", "\(server)", own,
        ])
        try #require(program.status == 0, "\(program.output)\(program.errors)")
        let lines = program.output.split(separator: "\n")
        func settings(_ end: String) throws -> String {
            String(try #require(lines.first { $0.hasPrefix("\(end) ") }).dropFirst(end.count + 1))
        }
        return Pair(client: try settings("client"), server: try settings("server"))
    }

    /// What the kernel's default is, and what `sockalive` derives from an hour.
    static let untouched = "0 7200 75 9 0"
    static let guarded = "1 600 60 50 0"

    /// The guards as `guard status --json` gives them.
    func status() throws -> [GuardDocument] {
        let program = try guarding("status", "--json")
        try #require(program.status == 0, "\(program.errors)")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(GuardStatusDocument.self, from: Data(program.output.utf8)).guards
    }
}

struct GuardStatusDocument: Decodable {
    let schema: Int
    let guards: [GuardDocument]
}

struct GuardDocument: Decodable {
    struct Wanted: Decodable, Equatable {
        let idle, interval, count: Int
        let userTimeout: Double?
    }

    struct Other: Decodable {
        let cgroup: String
        let programId: Int
        let name: String?
        let attach: String
    }

    let place, cgroup: String?
    let cgroupId: String
    let active: Bool
    let ports: [Int]?
    let anyPort, override: Bool?
    let firewallTimeout: Int?
    let wanted: Wanted?
    let treated, kept, failed: Int?
    let programId, linkId: Int
    let others: [Other]?
}

import Foundation
import Testing

/// A process in a cgroup of its own, at a path that the test chooses.
final class PlacedAgent {
    let agent: Agent
    let cgroup: String
    private let folder: String
    private let made: [String]

    /// Where the one hierarchy of version 2 is mounted; nil if this test may make no cgroups there.
    static let root: String? = {
        guard getuid() == 0, let mounts = try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8) else {
            return nil
        }
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.contains("cgroup2"), words.count > 5, words[3] == "/" else { continue }
            let test = "\(words[4])/sockalive-test-\(getpid())"
            guard mkdir(test, 0o755) == 0 else { continue }
            rmdir(test)
            return String(words[4])
        }
        return nil
    }()

    /// - Parameter path: of the cgroup; folders that are missing are made.
    init(_ path: String, name: String = "agent", owner: UInt32 = 0, launcher: [String] = []) throws {
        let root = try #require(Self.root)
        var made: [String] = []
        var place = root
        for component in path.split(separator: "/") {
            place += "/\(component)"
            if mkdir(place, 0o755) == 0 { made.append(place) }
        }
        agent = try Agent("plain", "1", name: name, launcher: launcher)
        try "\(agent.pid)".write(toFile: "\(place)/cgroup.procs", atomically: false, encoding: .utf8)
        (cgroup, folder, self.made) = (path, place, made)
    }

    deinit {
        agent.kill()
        // A cgroup is busy until its last process is gone for good.
        for folder in made.reversed() {
            for _ in 0..<100 where rmdir(folder) != 0 && errno == EBUSY { usleep(20_000) }
        }
    }
}

extension ProcessTests {
    @Suite(.enabled(if: PlacedAgent.root != nil, "no cgroups can be made here"))
    struct Places {
        private let tag = "sockalive\(getpid())"
        private let id = (0..<4).map { _ in String(UInt64.random(in: .max / 2 ... .max), radix: 16) }.joined()
        private static let user = "/user.slice/user-65534.slice/user@65534.service"

        /// Without the agents' peers, which have the same command lines and other cgroups.
        private func pids(_ report: Report, _ agents: [PlacedAgent]) -> Set<Int32> {
            let owners = Dictionary(agents.map { ($0.agent.executable, $0.agent.pid) }, uniquingKeysWith: { $1 })
            let own = report.sockets.filter { socket in
                guard let owner = socket.exe.flatMap({ owners[$0] }) else { return true }
                return socket.pid == owner
            }
            return Set(own.map(\.pid))
        }

        private func report(_ selection: [String]) throws -> Report {
            try Report.of(["list", "--any-port"] + selection)
        }

        /// Which of the agents are found.
        private func found(_ selection: [String], _ agents: [PlacedAgent]) throws -> [Int] {
            let pids = pids(try report(selection), agents)
            #expect(pids.isSubset(of: Set(agents.map(\.agent.pid))), "\(selection)")
            return agents.indices.filter { pids.contains(agents[$0].agent.pid) }
        }

        @Test func aUnitIsFoundByItsNameAndNotByAUsersFolder() throws {
            let agents = [
                try PlacedAgent("/system.slice/\(tag).service"),
                try PlacedAgent("/system.slice/system-\(tag).slice/\(tag)@1.service/worker"),
                try PlacedAgent("\(Self.user)/system.slice/\(tag).service"),
                try PlacedAgent("/docker/\(id)/system.slice/\(tag).service"),
            ]
            #expect(try found(["--unit", tag], agents) == [0])
            #expect(try found(["--unit", "\(tag).service"], agents) == [0])
            #expect(try found(["--unit", "\(tag)@1"], agents) == [1])
            #expect(try found(["--unit", "user@65534", "--cgroup", "*/*/*/*/\(tag).service"], agents) == [2])
            #expect(try found(["--unit", tag, "--unit", "\(tag)@1"], agents) == [0, 1])
            #expect(try found(["--unit", tag, "--process", "other"], agents) == [])
            #expect(try found(["--unit", tag, "--process", "agent"], agents) == [0])
            #expect(try found(["--unit", "\(tag)x"], agents) == [])
            #expect(try found(["--cgroup", "/system.slice/*/\(tag)@*"], agents) == [1])
            let socket = try report(["--unit", "\(tag)@1"]).socket
            #expect(socket.unit == "\(tag)@1.service")
            #expect(socket.cgroup == "/system.slice/system-\(tag).slice/\(tag)@1.service/worker")
            #expect(socket.container == nil && socket.pod == nil)
        }

        @Test func aUsersCgroupIsNotRootsContainer() throws {
            let spoof = try PlacedAgent("\(Self.user)/machine.slice/libpod-\(id).scope")
            let short = String(id.prefix(12))
            // It may be the user's own container, as long as root has none of that ID.
            #expect(try found(["--container", short], [spoof]) == [0])
            let real = try PlacedAgent("/machine.slice/libpod-\(id).scope/container")
            #expect(try found(["--container", short], [spoof, real]) == [1])
            #expect(try found(["--container", id], [spoof, real]) == [1])
            #expect(try found(["--container", id, "--cgroup", "/user.slice"], [spoof, real]) == [])
            let socket = try report(["--container", short]).socket
            #expect(socket.container == Report.Container(id: id, name: nil))
        }

        /// A service may give its folder to a user, who then names what is below.
        @Test func aDelegatedFolderIsNotRoots() throws {
            let parent = "/system.slice/\(tag)d.service"
            let spoof = try PlacedAgent("\(parent)/libpod-payload-\(id)")
            let real = try PlacedAgent("/libpod_parent/libpod-\(id)")
            #expect(try found(["--container", id], [spoof, real]) == [0, 1])
            chown(try #require(PlacedAgent.root) + parent, 65534, 65534)
            #expect(try found(["--container", id], [spoof, real]) == [1])
        }

        @Test func aPodIsFoundByItsUID() throws {
            let uid = UUID().uuidString.lowercased()
            let scope = uid.split(separator: "-").joined(separator: "_")
            let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod\(scope).slice"
            let agents = [
                try PlacedAgent("\(slice)/cri-containerd-\(id).scope"),
                try PlacedAgent("\(Self.user)/kubepods/pod\(uid)/\(id)"),
            ]
            #expect(try found(["--pod", uid], agents) == [0])
            let socket = try report(["--pod", uid]).socket
            #expect(socket.pod == Report.Pod(uid: uid, name: nil, namespace: nil))
            #expect(socket.container?.id == id)
        }

        /// A name cannot be known without a monitor or a file of an engine.
        @Test func anUnknownNameIsNoAbsence() throws {
            let agent = try PlacedAgent("/machine.slice/libpod-\(id).scope")
            let program = try Program.sockalive(["list", "--any-port", "--container", "web\(tag)"])
            #expect(program.status == 1)
            #expect(
                program.errors.contains(
                    "--container web\(tag): no container of that name can be known here; its ID works"))
            #expect(try found(["--container", String(id.prefix(12))], [agent]) == [0])
        }

        @Test func anArgumentIsMatchedAsAWhole() throws {
            let one = try PlacedAgent("/system.slice/\(tag)c.service")
            let name = try #require(one.agent.executable.split(separator: "/").last)
            #expect(try found(["--command", one.agent.executable], [one]) == [0])
            #expect(try found(["--command", one.agent.executable + "x"], [one]) == [])
            #expect(try found(["--unit", "\(tag)c", "--command", String(name)], [one]) == [0])
            #expect(try found(["--unit", "\(tag)c", "--command", "plain"], [one]) == [0])
            #expect(try found(["--unit", "\(tag)c", "--command", "plai"], [one]) == [])
            let socket = try report(["--unit", "\(tag)c"]).socket
            #expect(socket.command == [one.agent.executable, "plain", "1"])
        }

        @Test func theTableAndTheLogTellThePlace() throws {
            let agent = try PlacedAgent("/system.slice/\(tag)t.service")
            let wide = try Program.sockalive(["list", "--any-port", "--unit", "\(tag)t"])
            #expect(wide.output.contains("UNIT") && wide.output.contains("\(tag)t.service"))
            let container = try PlacedAgent("/docker/\(id)")
            let both = try Program.sockalive(
                ["list", "--any-port", "--pid", "\(agent.agent.pid)", "--pid", "\(container.agent.pid)"])
            #expect(both.output.contains("CONTAINER") && both.output.contains(String(id.prefix(12))))
        }

        @Test func rulesOfAllKindsShareOneRun() throws {
            let agents = [
                try PlacedAgent("/system.slice/\(tag)r.service"),
                try PlacedAgent("/machine.slice/libpod-\(id).scope"),
                try PlacedAgent("/system.slice/\(tag)s.service", name: "named\(tag)"),
                try PlacedAgent("/system.slice/\(tag)u.service"),
            ]
            let folder = try TemporaryFolder()
            let file = folder.path("rules")
            try """
            --unit \(tag)r --any-port --firewall-timeout 30m
            --container \(id.prefix(12)) --any-port --firewall-timeout 40m
            --command named\(tag) --any-port --firewall-timeout 50m
            --process nobody\(tag) --any-port
            """.write(toFile: file, atomically: false, encoding: .utf8)
            let report = try Report.of(["list", "--config", file])
            let timeouts = agents.map { agent in
                Set(report.sockets.filter { $0.pid == agent.agent.pid }.map(\.firewallTimeout))
            }
            #expect(timeouts == [[1800], [2400], [3000], []])
            #expect(pids(report, agents).isSubset(of: Set(agents.map(\.agent.pid))))
        }
    }
}

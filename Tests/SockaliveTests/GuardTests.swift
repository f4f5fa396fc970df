import Foundation
import Testing

extension ProcessTests {
    /// Real connections in a guarded cgroup.
    @Suite(.enabled(if: GuardHost.isPossible, Comment(rawValue: GuardHost.absence ?? "")))
    struct Guards {
        private let host: GuardHost

        init() throws {
            host = try GuardHost()
        }

        private func turnOn(_ more: String...) throws {
            let program = try Program.sockalive(
                ["guard", "on", "--cgroup", host.path] + more, launcher: host.launcher)
            try #require(program.status == 0, "\(program.errors)")
            #expect(program.output.isEmpty)
        }

        private typealias Pair = GuardHost.Pair
        private static let untouched = GuardHost.untouched
        private static let guarded = GuardHost.guarded

        /// The client's end is made by connect(2), the server's end comes from accept(2): active and passive.
        @Test(arguments: GuardHost.Family.allCases, ["listener", "client"])
        func `a port counts at either end, of both ends`(family: GuardHost.Family, end: String) throws {
            try turnOn("--port", "7101")
            let pair =
                try end == "listener" ? host.connect(family, to: 7101) : host.connect(family, from: 7101)
            #expect(pair == Pair(client: Self.guarded, server: Self.guarded))
            let state = try #require(try host.status().first)
            #expect(state.treated == 2 && state.kept == 0 && state.failed == 0)
        }

        @Test(arguments: GuardHost.Family.allCases)
        func `another port is left alone`(family: GuardHost.Family) throws {
            try turnOn("--port", "7101")
            // Numbers that share bytes or bits with it.
            for port in [7100, 7102, 7109, 48_411, 6_889] {
                let pair = try host.connect(family, to: port)
                #expect(pair == Pair(client: Self.untouched, server: Self.untouched), "\(port)")
            }
            #expect(try host.status().first?.treated == 0)
        }

        @Test(arguments: GuardHost.Family.allCases)
        func `several ports, and any port`(family: GuardHost.Family) throws {
            try turnOn("--port", "1", "--port", "7101", "--port", "65535")
            let expected = [1: Self.guarded, 65535: Self.guarded, 7101: Self.guarded, 2: Self.untouched]
            for (port, settings) in expected {
                #expect(try host.connect(family, to: port) == Pair(client: settings, server: settings), "\(port)")
            }
            try turnOn("--any-port")
            for port in [2, 7102, 0] {
                #expect(try host.connect(family, to: port) == Pair(client: Self.guarded, server: Self.guarded))
            }
        }

        @Test(arguments: GuardHost.Family.allCases)
        func `a program's own choice stays, unless that is overridden`(family: GuardHost.Family) throws {
            let own = "1 7200 75 9 0"
            try turnOn("--port", "7101")
            #expect(
                try host.connect(family, to: 7101, own: "client") == Pair(client: own, server: Self.guarded))
            #expect(
                try host.connect(family, to: 7101, own: "listener") == Pair(client: Self.guarded, server: own))
            #expect(try host.status().first?.kept == 2 && host.status().first?.treated == 2)
            try turnOn("--port", "7101", "--override")
            for end in ["client", "listener"] {
                let pair = try host.connect(family, to: 7101, own: end)
                #expect(pair == Pair(client: Self.guarded, server: Self.guarded))
            }
        }

        @Test func `an idle time of the program's own stays if it is short enough`() throws {
            let own = "1 30 5 3 0"
            try turnOn("--port", "7101")
            #expect(
                try host.connect(to: 7101, own: "client-times") == Pair(client: own, server: Self.guarded))
            #expect(
                try host.connect(to: 7101, own: "listener-times") == Pair(client: Self.guarded, server: own))
            #expect(try host.status().first?.treated == 4)
            try turnOn("--port", "7101", "--firewall-timeout", "1m")
            #expect(try host.connect(to: 7101, own: "client-times").client == "1 10 1 50 0")
            try turnOn("--port", "7101", "--override")
            #expect(try host.connect(to: 7101, own: "client-times").client == Self.guarded)
        }

        @Test func `a user with too many cgroups is named, and hides nobody else`() throws {
            let part = try host.make("of-a-user")
            for number in 1...1100 { try host.make("of-a-user/\(number)") }
            let id = String(repeating: "0123456789abcdef", count: 4)
            try host.make(id)
            let sleeper = try host.sleeper(in: id)
            defer { sleeper.kill() }
            try #require(chown(part, 1234, 1234) == 0)
            let found = try host.guarding("on", "--container", id)
            #expect(found.status == 0, "\(found.errors)")
            #expect(found.errors.contains("\(id): new connections"))
            #expect(found.errors.contains("user 1234 has too many cgroups in \(host.path)/of-a-user"))
            let missing = try host.guarding("on", "--container", "f" + id.dropFirst())
            #expect(missing.status == 1 && missing.errors.contains("user 1234 has too many cgroups"))
            #expect(try host.guarding("on", "--unit", "sockalive-none.service").errors.contains("nothing runs in"))
        }

        @Test func `a place too long to be kept is refused`() throws {
            let long = try host.guarding("on", "--cgroup", host.path + "/" + String(repeating: "x", count: 600))
            #expect(long.status == 64)
        }

        @Test func `the values are those that were asked for`() throws {
            let cases: [([String], String)] = [
                (["--firewall-timeout", "5m"], "1 50 5 50 0"),
                (["--idle", "17", "--interval", "3", "--count", "5"], "1 17 3 5 0"),
                (["--user-timeout", "90s"], "1 600 60 50 90000"),
            ]
            for (options, settings) in cases {
                let program = try Program.sockalive(
                    ["guard", "on", "--cgroup", host.path, "--any-port"] + options, launcher: host.launcher)
                #expect(program.status == 0)
                #expect(try host.connect() == Pair(client: settings, server: settings))
            }
        }

        @Test func `values that do not help are warned about`() throws {
            let late = try host.guarding("on", "--cgroup", host.path, "--idle", "2h")
            #expect(late.status == 0 && late.errors.contains("choose a shorter --idle"))
            let short = try host.guarding("on", "--cgroup", host.path, "--user-timeout", "5s")
            #expect(short.status == 0 && short.errors.contains("--user-timeout 1h"))
        }

        @Test func `new values replace the old ones in the same program, and the same are no change`() throws {
            try turnOn("--port", "7101")
            _ = try host.connect(to: 7101)
            let before = try #require(try host.status().first)
            try turnOn("--port", "7102", "--firewall-timeout", "5m")
            let after = try #require(try host.status().first)
            #expect(after.programId == before.programId && after.linkId == before.linkId)
            #expect(after.ports == [7102] && after.firewallTimeout == 300 && after.treated == 2)
            #expect(try host.connect(to: 7101).client == Self.untouched)
            #expect(try host.connect(to: 7102).client == "1 50 5 50 0")
            let again = try host.guarding("on", "--cgroup", host.path, "--port", "7102", "--firewall-timeout", "5m")
            #expect(again.status == 0 && again.errors.contains("as before"))
        }

        @Test func `a guard ends for its place, and for all`() throws {
            try host.make("inner")
            try turnOn("--any-port")
            #expect(try host.guarding("on", "--cgroup", "\(host.path)/inner", "--any-port").status == 0)
            #expect(try host.status().count == 2)
            let off = try host.guarding("off", "--cgroup", host.path)
            #expect(off.status == 0 && off.errors.contains("has ended"))
            #expect(try host.connect().client == Self.untouched)
            #expect(try host.connect(in: "inner").client == Self.guarded)
            #expect(try host.guarding("off", "--all").status == 0)
            #expect(try host.connect(in: "inner").client == Self.untouched)
            #expect(try host.status().isEmpty)
            #expect(try host.guarding("off", "--cgroup", host.path).errors.contains("there is no such guard"))
        }

        @Test func `what cannot be listed is not "none"`() throws {
            try turnOn("--any-port")
            let failing = host.launcher + Conditions.denying("getdents64=EIO")
            for arguments in [["status"], ["off", "--all"], ["off", "--unit", "sockalive-nobody"]] {
                let program = try Program.sockalive(["guard"] + arguments, launcher: failing)
                #expect(program.status == 1 && program.output.isEmpty, "\(arguments): \(program.errors)")
                #expect(program.errors.contains("cannot be"), "\(program.errors)")
            }
            #expect(try host.connect().client == Self.guarded)
        }

        @Test func `outside of the place nothing is changed, and the inner place counts first`() throws {
            try host.make("inner")
            try turnOn("--any-port")
            let inner = try host.guarding(
                "on", "--cgroup", "\(host.path)/inner", "--any-port", "--firewall-timeout", "5m")
            #expect(inner.status == 0)
            #expect(try host.connect(in: nil).client == Self.untouched)
            #expect(try host.connect().client == Self.guarded)
            #expect(try host.connect(in: "inner").client == "1 50 5 50 0")
        }

        @Test func `a cgroup that is made anew is no longer guarded, and status says so`() throws {
            let inner = try host.make("inner")
            #expect(try host.guarding("on", "--cgroup", "\(host.path)/inner", "--any-port").status == 0)
            #expect(rmdir(inner) == 0)
            // The kernel lets go of a removed cgroup's programs a moment later (kernel/bpf/cgroup.c, cgroup_bpf_offline).
            let deadline = Deadline(.seconds(20))
            while try host.status().map(\.active) != [false] { try #require(deadline.millisecondsLeft > 0) }
            #expect(try host.guarding("status").output.contains("the cgroup is gone"))
            let gone = try host.guarding("on", "--cgroup", "\(host.path)/inner")
            #expect(gone.status == 1 && gone.errors.contains("nothing to attach to"))
            try host.make("inner")
            #expect(try host.connect(in: "inner").client == Self.untouched)
            #expect(try host.guarding("on", "--cgroup", "\(host.path)/inner", "--any-port").status == 0)
            #expect(try host.connect(in: "inner").client == Self.guarded)
            // The guard of the old cgroup is not kept.
            #expect(try host.status().map(\.active) == [true])
        }

        @Test func `a unit is its cgroup, by systemd's rule`() throws {
            let name = "sockalive-test-\(UUID().uuidString).service"
            // Below a unit, whoever owns it names folders as they like.
            for folder in [name, "other.service", "other.service/\(name)"] { try host.make(folder) }
            let on = try host.guarding("on", "--unit", String(name.dropLast(8)), "--any-port")
            #expect(on.status == 0, "\(on.errors)")
            #expect(try host.connect(in: name).client == Self.guarded)
            #expect(try host.connect(in: "other.service/\(name)").client == Self.untouched)
            #expect(try host.status().map(\.place) == ["--unit \(name)"])
            // It ends, and its guard is still meant by its name.
            rmdir("\(host.folder)/\(name)")
            let again = try host.guarding("on", "--unit", name)
            #expect(again.status == 1 && again.errors.contains("systemctl start \(name)"), "\(again.errors)")
            #expect(try host.guarding("off", "--unit", name).errors.contains("has ended"))
            #expect(try host.status().isEmpty)
        }

        @Test func `a container and a pod are found by their IDs`() throws {
            let id = (0..<64).map { _ in String(Int.random(in: 0..<16), radix: 16) }.joined()
            let uid = UUID().uuidString.lowercased()
            let pod = "kubepods-besteffort-pod\(uid.replacing("-", with: "_")).slice"
            for folder in [pod, "\(pod)/cri-containerd-\(id).scope"] { try host.make(folder) }
            let process = try host.sleeper(in: "\(pod)/cri-containerd-\(id).scope")
            defer { process.kill() }
            let container = try host.guarding("on", "--container", String(id.prefix(12)), "--port", "7101")
            #expect(container.status == 0, "\(container.errors)")
            #expect(try host.guarding("on", "--pod", uid, "--port", "7102").status == 0)
            #expect(try host.connect(to: 7101, in: "\(pod)/cri-containerd-\(id).scope").client == Self.guarded)
            #expect(try host.connect(to: 7101, in: pod).client == Self.untouched)
            #expect(try host.connect(to: 7102, in: "\(pod)/cri-containerd-\(id).scope").client == Self.guarded)
            let other = try host.guarding("on", "--container", String(repeating: "f", count: 13))
            #expect(other.status == 1 && other.errors.contains("nothing to attach to"))
        }

        @Test func `connections that are there already are counted, and left alone`() throws {
            let victim = try Victim {
                $0.launcher =
                    host.launcher + [
                        "sh", "-c", "echo 0 >'\(host.folder)/cgroup.procs' && exec \"$@\"", "sh",
                    ]
                $0.peerLauncher = host.launcher
            }
            let program = try host.guarding("on", "--cgroup", host.path, "--any-port")
            #expect(program.status == 0)
            #expect(
                program.errors.contains(
                    "without keepalive: sockalive inject --cgroup \(host.path) --any-port serves"), "\(program.errors)")
            #expect(try victim.keepalive().allSatisfy { !$0.enabled })
            let inject = try Program.sockalive(
                ["inject", "--cgroup", host.path, "--any-port", "--no-lock"], launcher: host.launcher)
            #expect(inject.status == 0)
            #expect(try victim.keepalive().allSatisfy(\.enabled))
        }

        // MARK: the watch

        private func watch(_ arguments: String...) throws -> Child {
            let watch = try Child(
                host.launcher + [Program.executable, "watch", "--guard", "--no-lock", "--every", "1"] + arguments)
            let line = try #require(watch.errors.line(until: Deadline(.seconds(10))))
            #expect(line.contains("new connections are guarded"), "\(line)")
            return watch
        }

        @Test(arguments: [SIGKILL, SIGTERM]) func `a watch guards for as long as it lives`(signal: Int32) throws {
            let watch = try watch("--cgroup", host.path, "--any-port")
            #expect(try host.connect().client == Self.guarded)
            // Its guards are its own.
            #expect(try host.status().isEmpty)
            kill(watch.pid, signal)
            _ = watch.wait()
            let deadline = Deadline(.seconds(10))
            while try host.connect().client != Self.untouched {
                try #require(deadline.millisecondsLeft > 0, "something is still attached")
            }
        }

        @Test func `a watch guards a unit again that has a new cgroup`() throws {
            let name = "sockalive-test-\(UUID().uuidString).service"
            let folder = try host.make(name)
            let watch = try watch("--unit", name, "--any-port")
            #expect(try host.connect(in: name).client == Self.guarded)
            #expect(rmdir(folder) == 0)
            try host.make(name)
            let line = watch.errors.line(until: Deadline(.seconds(20)))
            #expect(line?.contains("new connections are guarded") == true)
            #expect(try host.connect(in: name).client == Self.guarded)
        }

        @Test func `a rule that means less than a place is not guarded`() throws {
            for options in [
                ["--process", "agent"], ["--any-process", "--remote", "192.0.2.1"],
                ["--cgroup", host.path, "--user", "0"], ["--cgroup", host.path, "--command", "x"],
            ] {
                let program = try Program.sockalive(
                    ["watch", "--guard", "--no-lock"] + options, launcher: host.launcher)
                #expect(program.status == 64 && program.errors.contains("whole places"), "\(program.errors)")
            }
        }

        @Test func `metrics tell what is guarded`() throws {
            let folder = try TemporaryFolder()
            try turnOn("--port", "7101")
            _ = try host.connect(to: 7101)
            let run = try Program.sockalive(
                ["inject", "--no-lock", "--pid", "2147483647", "--metrics", folder.path("m.prom")],
                launcher: host.launcher)
            #expect(run.status == 0)
            let text = try String(contentsOfFile: folder.path("m.prom"), encoding: .utf8)
            let labels = "{place=\"--cgroup \(host.path)\",cgroup=\"\(host.path)\"}"
            #expect(text.contains("sockalive_guarded\(labels) 1\n"), "\(text)")
            #expect(text.contains("sockalive_guard_treated_connections\(labels) 2\n"), "\(text)")
        }

        @Test func `the doctor tries a guard`() throws {
            let program = try Program.sockalive(["doctor"], launcher: host.launcher)
            #expect(program.output.contains("a guard gave both ends of a new connection their keepalive"))
        }

        /// `Tests/Torture/guard.sh` kills more often.
        @Test func `a run that is killed leaves the old guard or the new one`() throws {
            let environment = ProcessInfo.processInfo.environment.merging([
                "SOCKALIVE": Program.executable, "VICTIMS": TestProgram.folder,
            ]) { $1 }
            let torture = try Program.run(
                [TestProgram.script("Torture/guard.sh"), "12"], environment: environment, deadline: .seconds(120))
            #expect(torture.status == 0 && torture.output.hasSuffix(" 0 wrong\n"), "\(torture.output)\(torture.errors)")
        }

        // MARK: neighbours

        @Test func `another program with MULTI works above, beside and below`() throws {
            for name in ["", "middle", "middle/below"] { try host.attachNeighbour("--multi", at: name) }
            #expect(try host.guarding("on", "--cgroup", "\(host.path)/middle", "--any-port").status == 0)
            // The others were there before, and turn the active end's keepalive on: to the guard that is a choice.
            for place in ["middle", "middle/below"] {
                #expect(try host.connect(in: place) == Pair(client: "1 7200 75 9 0", server: Self.guarded))
            }
            #expect(try host.connect() == Pair(client: "1 7200 75 9 0", server: Self.untouched))
            let guarded = try #require(try host.status().first)
            let others = try #require(guarded.others)
            #expect(others.map(\.cgroup) == ["\(host.path)/middle", host.path])
            #expect(others.allSatisfy { $0.name == "test_neighbour" && $0.attach == "multi" })
        }

        @Test(arguments: [[], ["--override"]]) func `another program without MULTI below works`(mode: [String]) throws {
            try host.make("below")
            if mode.isEmpty { try host.attachNeighbour(at: "below") }
            if !mode.isEmpty { try host.attachNeighbour("--override", at: "below") }
            try turnOn("--any-port", "--override")
            // The one below turns the active end's keepalive on; the guard comes after that.
            #expect(try host.connect(in: "below") == Pair(client: Self.guarded, server: Self.guarded))
        }

        @Test(arguments: ["", "--override"], ["", "inner"])
        func `another program without MULTI above or beside is named, and stays`(mode: String, place: String) throws {
            if mode.isEmpty { try host.attachNeighbour() } else { try host.attachNeighbour(mode) }
            if !place.isEmpty { try host.make(place) }
            let path = host.path + (place.isEmpty ? "" : "/\(place)")
            let program = try host.guarding("on", "--cgroup", path, "--any-port")
            #expect(program.status == 1)
            #expect(program.errors.contains(#/program [0-9]+ \(test_neighbour\) at \//#), "\(program.errors)")
            #expect(try host.status().isEmpty)
            // It still does its work: SO_KEEPALIVE for the active end.
            #expect(try host.connect(in: place) == Pair(client: "1 7200 75 9 0", server: Self.untouched))
        }

        // MARK: refusals

        @Test func `before Linux 5.9 the remedy is the watch`() throws {
            // The personality UNAME26 makes the kernel tell 2.6 (personality(2)).
            let program = try host.run([
                "setarch", "--uname-2.6", Program.executable, "guard", "on", "--cgroup", host.path,
            ])
            #expect(program.status == 69)
            #expect(program.errors.contains("Linux 5.9") && program.errors.contains("sockalive watch"))
        }

        @Test func `without cgroup2 the mount that helps is named`() throws {
            let mount = try #require(GuardHost.mount)
            let program = try host.run([
                "unshare", "--mount", "sh", "-c", "umount -l '\(mount)' && exec \"$@\"", "sh",
                Program.executable, "guard", "on", "--cgroup", host.path,
            ])
            #expect(program.status == 69 && program.errors.contains("mount -t cgroup2"), "\(program.errors)")
        }

        @Test func `missing rights are named`() throws {
            // The file system for the pins has to be mounted by then.
            try host.make("inner")
            #expect(try host.guarding("on", "--cgroup", "\(host.path)/inner").status == 0)
            for (rights, missing) in [
                ("-all,+dac_override,+bpf", "CAP_NET_ADMIN is missing"),
                ("-all,+dac_override,+net_admin", "CAP_BPF is missing"),
                ("-all,+dac_override", "CAP_NET_ADMIN and CAP_BPF is missing"),
            ] {
                let launcher = host.launcher + ["setpriv", "--bounding-set=\(rights)", "--inh-caps=-all"]
                let program = try Program.sockalive(
                    ["guard", "on", "--cgroup", host.path, "--port", "7101"], launcher: launcher)
                #expect(program.status == 77 && program.errors.contains(missing), "\(program.errors)")
            }
            // These two are enough.
            let launcher = host.launcher + ["setpriv", "--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all"]
            let program = try Program.sockalive(
                ["guard", "on", "--cgroup", host.path, "--port", "7101"], launcher: launcher)
            #expect(program.status == 0, "\(program.errors)")
            #expect(try host.connect(to: 7101).client == Self.guarded)
        }

        @Test func `a folder of pins that is another user's is not used`() throws {
            #expect(try host.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"]).status == 0)
            let other = "mkdir -m 700 /sys/fs/bpf/sockalive && chown 65534 /sys/fs/bpf/sockalive"
            #expect(try host.run(["sh", "-c", other]).status == 0)
            let program = try host.guarding("on", "--cgroup", host.path)
            #expect(program.status == 1 && program.errors.contains("belongs to another user"), "\(program.errors)")
            // Nor is a link followed.
            let link = "rmdir /sys/fs/bpf/sockalive; mkdir -m 700 /sys/fs/bpf/e && ln -s e /sys/fs/bpf/sockalive"
            #expect(try host.run(["sh", "-c", link]).status == 0)
            #expect(try host.guarding("on", "--cgroup", host.path).status == 1)
            #expect(try host.connect().client == Self.untouched)
        }

        @Test func `only one kind of place is taken`() throws {
            for arguments in [
                ["on"], ["on", "--host", "--cgroup", "/x"], ["off"], ["off", "--all", "--host"],
                ["on", "--cgroup", "/x/../y"], ["on", "--host", "--port", "1", "--any-port"],
            ] {
                #expect(try Program.sockalive(["guard"] + arguments, launcher: host.launcher).status == 64)
            }
        }
    }
}

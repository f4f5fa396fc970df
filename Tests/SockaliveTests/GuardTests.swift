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
            #expect(try host.status().map(\.active) == [false])
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

        // MARK: neighbours

        @Test func `another program with MULTI works above, beside and below`() throws {
            for name in ["", "middle", "middle/below"] { try host.attachNeighbour("--multi", at: name) }
            #expect(try host.guarding("on", "--cgroup", "\(host.path)/middle", "--any-port").status == 0)
            // The others were there before, and turn the active end's keepalive on: to the guard that is a choice.
            for place in ["middle", "middle/below"] {
                #expect(try host.connect(in: place) == Pair(client: "1 7200 75 9 0", server: Self.guarded))
            }
            #expect(try host.connect() == Pair(client: "1 7200 75 9 0", server: Self.untouched))
            let others = try #require(try host.status().first).others
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
            let folder = try TemporaryFolder()
            try "5.8.0-test\n".write(toFile: folder.path("osrelease"), atomically: true, encoding: .utf8)
            let program = try host.run([
                "unshare", "--mount", "sh", "-c",
                "mount --bind '\(folder.path("osrelease"))' /proc/sys/kernel/osrelease && exec \"$@\"", "sh",
                Program.executable, "guard", "on", "--cgroup", host.path,
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
            let other = "mkdir /sys/fs/bpf/sockalive && chown 65534 /sys/fs/bpf/sockalive"
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
                ["on", "--cgroup", "x"],
                ["on", "--cgroup", "/x/../y"], ["on", "--host", "--port", "1", "--any-port"],
            ] {
                #expect(try Program.sockalive(["guard"] + arguments, launcher: host.launcher).status == 64)
            }
        }
    }
}

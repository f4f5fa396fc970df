import Foundation
import Testing

extension ProcessTests {
    /// Two links, and on each a peer with the very same addresses and ports, as BGP unnumbered has it.
    @Suite(
        .enabled(if: Machine.isRoot && Machine.makesNamespaces && Machine.has("ip"), "root, unshare and ip are needed"))
    struct LinkLocal {
        private let room: TestNetwork
        private let peers: [TestNetwork]
        private let links: [String]
        private let victims: [Victim]

        private static let port = 5633

        init() throws {
            try self.init(["left0", "left1"])
        }

        private init(_ links: [String]) throws {
            let room = try TestNetwork()
            // The numbers of these interfaces are others' at the tests' own place.
            try room.run("ip link add away type veth peer name away2 && ip link del away")
            peers = try links.map { link in
                let peer = try TestNetwork()
                try room.link(link, to: peer)
                return peer
            }
            victims = try zip(links, peers).map { link, peer in
                try Victim {
                    $0.launcher = room.launcher
                    $0.peerLauncher = peer.launcher
                    $0.address = "fe80::2%\(link)"
                    $0.peerAddress = "::"
                    $0.port = Self.port
                    $0.localPort = 40000
                }
            }
            self.room = room
            self.links = links
        }

        private var selection: [String] { victims.flatMap { ["--pid", "\($0.pid)"] } }

        private func list(_ more: [String], status: Int32 = 0) throws -> [Report.Socket] {
            try Report.of(["list"] + selection + more, status: status).sockets
        }

        private func index(of link: String) throws -> String {
            try room.run("ip -o link show dev '\(link)'").prefix { $0 != ":" }.description
        }

        @Test(arguments: ["auto", "diag"]) func `each is shown with its link`(source: String) throws {
            let sockets = try list(["--source", source])
            #expect(sockets.count == 2)
            for (victim, link) in zip(victims, links) {
                let socket = try #require(sockets.first { $0.pid == victim.pid })
                #expect(socket.local == .init(address: "fe80::1", port: 40000, scope: link))
                #expect(socket.remote == .init(address: "fe80::2", port: Self.port, scope: link))
                #expect(socket.family == "ipv6" && socket.idleSeconds != nil && socket.verdict == "unprotected")
            }
            let table = try Program.sockalive(["list", "--source", source] + selection).output
            for link in links { #expect(table.contains(" [fe80::1%\(link)]:40000  [fe80::2%\(link)]:5633 ")) }
        }

        @Test func `a table that does not tell the link leaves it open`() throws {
            let sockets = try list(["--source", "procfs"])
            #expect(sockets.count == 2 && sockets.allSatisfy { $0.local.scope == nil && $0.remote.scope == nil })
            let table = try Program.sockalive(["list", "--source", "procfs"] + selection).output
            #expect(table.contains(" [fe80::1]:40000  [fe80::2]:5633 "))
        }

        @Test(arguments: ["auto", "diag"]) func `a peer is matched by its link`(source: String) throws {
            func found(_ range: String) throws -> [String] {
                try list(["--source", source, "--remote", range]).compactMap(\.remote.scope).sorted()
            }
            #expect(try found("fe80::2%left0") == ["left0"])
            #expect(try found("fe80::/10%left1") == ["left1"])
            #expect(try found("fe80::%left1/64") == ["left1"])
            #expect(try found("fe80::2%\(index(of: "left1"))") == ["left1"])
            #expect(try found("fe80::/64") == ["left0", "left1"])
            for other in ["fe80::2%left2", "fe80::3%left0", "fe80::2%lo"] { #expect(try found(other) == []) }
            let none = try Program.sockalive(["list", "--remote", "fe80::/10%left2"] + selection)
            #expect(none.errors.contains(" to fe80::/10%left2, "))
        }

        /// An unknown is not a "no": it is told, and nothing is done.
        @Test func `without the link nobody knows whether a connection is meant`() throws {
            let link = ["--source", "procfs", "--remote", "fe80::2%left0"]
            let sockets = try list(link, status: 69)
            #expect(sockets.count == 2 && sockets.allSatisfy { $0.error?.remedy?.contains("--source diag") == true })
            for command in ["inject", "probe"] {
                let report = try Report.of([command] + selection + link, status: 69)
                #expect(report.summary.failed == 2)
            }
            #expect(try victims.flatMap { try $0.keepalive() } == [.untouched, .untouched])
            // What the address alone decides is decided.
            #expect(try list(["--source", "procfs", "--remote", "fe80::3%left0"]).isEmpty)
            // Another rule means one of them for certain.
            let folder = try TemporaryFolder()
            let rules = [(selection + link).joined(separator: " "), "--pid \(victims[1].pid)"]
            try rules.joined(separator: "\n").write(toFile: folder.path("rules"), atomically: true, encoding: .utf8)
            let report = try Report.of(["inject", "--config", folder.path("rules")], status: 1)
            #expect(report.sockets.filter { $0.error == nil }.map(\.pid) == [victims[1].pid])
        }

        @Test(arguments: methods, SourceNames.all)
        func `each is treated, and each answers a probe`(method: String, source: String) throws {
            let how = ["--method", method, "--source", source] + selection
            let one = try Report.of(["inject", "--source", "diag", "--remote", "fe80::2%left0"] + selection)
            #expect(try one.socket.pid == victims[0].pid)
            #expect(try victims.flatMap { try $0.keepalive() } == [.forOneHour, .untouched])
            let report = try Report.of(["inject", "--probe"] + how)
            #expect(report.summary == .init(candidates: 2, set: 1, unchanged: 1, failed: 0, answered: 2, silent: 0))
            #expect(try victims.flatMap { try $0.keepalive() } == [.forOneHour, .forOneHour])
        }

        /// The owner of the namespace names its interfaces.
        @Test(arguments: ["auto", "diag"]) func `a hostile name reaches no terminal`(source: String) throws {
            let name = "\u{1b}[31m\u{202e}x"
            let hostile = try LinkLocal([name])
            for arguments in [["list"], ["inject", "--no-lock", "--verbose"], ["probe", "--no-lock", "--verbose"]] {
                let program = try Program.sockalive(arguments + ["--source", source] + hostile.selection)
                #expect(program.output.contains("[fe80::2%\\x1b[31m\\u{202e}x]:5633"))
                for text in [program.output, program.errors] {
                    #expect(!text.contains { "\u{1b}\u{202e}".contains($0) })
                }
            }
            let sockets = try hostile.list(["--source", source, "--remote", "fe80::2%\(name)"])
            #expect(sockets.map(\.remote.scope) == [name])
        }

        @Test(arguments: ["auto", "diag"]) func `an interface that is gone is shown by its number`(source: String)
            throws
        {
            let number = try index(of: "left0")
            try room.run("ip link del left0")
            let sockets = try list(["--source", source])
            #expect(sockets.first { $0.pid == victims[0].pid }?.remote.scope == number)
            #expect(sockets.first { $0.pid == victims[1].pid }?.remote.scope == "left1")
            let table = try Program.sockalive(["list", "--source", source] + selection).output
            #expect(table.contains("[fe80::2%\(number)]:5633"))
        }
    }
}

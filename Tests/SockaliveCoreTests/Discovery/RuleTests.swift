import Testing

@testable import SockaliveCore

@Suite struct StrictestTests {
    private func strictest(_ requests: KeepaliveRequest...) -> KeepaliveRequest.Wanted? {
        let forward = KeepaliveRequest.strictest(requests)
        #expect(KeepaliveRequest.strictest(requests.reversed()) == forward)
        return forward?.wanted
    }

    private func wanted(_ idle: Int32, _ interval: Int32, _ count: Int32, userTimeout: Int32? = nil)
        -> KeepaliveRequest.Wanted
    {
        .init(enabled: true, idle: idle, interval: interval, count: count, userTimeout: userTimeout)
    }

    @Test func `the smallest firewall timeout wins`() {
        let hour = KeepaliveRequest(firewallTimeout: Seconds(3600))
        #expect(strictest(hour, KeepaliveRequest(firewallTimeout: Seconds(60))) == wanted(10, 1, 50))
        #expect(strictest(hour, KeepaliveRequest(firewallTimeout: Seconds(4))) == wanted(1, 1, 3))
        #expect(strictest(hour) == wanted(600, 60, 50))
        #expect(KeepaliveRequest.strictest([]) == nil)
    }

    @Test func `the smallest explicit idle time and interval win, and the largest count`() {
        let hour = KeepaliveRequest(firewallTimeout: Seconds(3600))
        #expect(strictest(hour, KeepaliveRequest(idle: 30)) == wanted(30, 60, 60))
        #expect(strictest(hour, KeepaliveRequest(idle: 900)) == wanted(600, 60, 50))
        #expect(
            strictest(
                KeepaliveRequest(idle: 30, interval: 9, count: 3), KeepaliveRequest(idle: 40, interval: 5, count: 4))
                == wanted(30, 5, 4))
        #expect(strictest(hour, KeepaliveRequest(userTimeout: 7)) == wanted(600, 60, 50, userTimeout: 7))
    }

    @Test func `on has priority over off`() {
        let off = KeepaliveRequest(enabled: false)
        #expect(strictest(off, KeepaliveRequest(firewallTimeout: Seconds(60))) == wanted(10, 1, 50))
        #expect(strictest(off, off)?.enabled == false)
    }
}

@Suite struct RuleSetTests {
    private func rule(
        _ processes: ProcessSelection, ports: Set<UInt16>? = [5633], remote: String? = nil, timeout: Int = 3600,
        listeners: Bool = false
    ) -> Rule {
        let sockets = SocketSelection(
            ports: ports, remote: remote.flatMap { AddressRange($0) }, listeners: listeners)
        return Rule(
            selection: Selection(processes: processes, sockets: sockets),
            request: KeepaliveRequest(firewallTimeout: Seconds(timeout)))
    }

    private func socket(
        port: UInt16, holders: [Int32], state: SocketRow.State = .established, peer: String = "192.0.2.1"
    ) -> DiscoveredSocket {
        let process = ProcessIdentity(
            pid: holders[0], name: UntrustedText("x"), executable: nil, uid: 0, startTime: 1, networkNamespace: 1)
        let here = Endpoint(address: IPAddress("198.51.100.1")!, port: 50000)
        let there = Endpoint(address: IPAddress(peer)!, port: port)
        return DiscoveredSocket(
            process: process, holders: holders.map { SocketHolder(pid: $0, fd: 3) },
            row: SocketRow(
                family: .ipv4, local: here, remote: there, state: state, timer: .none, uid: 0, inode: 7))
    }

    private func strictest(_ rules: RuleSet, _ socket: DiscoveredSocket) -> KeepaliveRequest? {
        KeepaliveRequest.strictest(looked(RuleIndex(rules.rules), socket).map { rules.rules[$0].request })
    }

    @Test func `the union finds the sockets of each rule`() {
        let one = rule(ProcessSelection(names: ["a"], uid: 3), ports: [1])
        let two = rule(ProcessSelection(names: ["b"], pids: [7], uid: 3), ports: [2], remote: "10.0.0.0/8")
        let union = RuleSet([one, two]).union
        #expect(union.processes == ProcessSelection(names: ["a", "b"], pids: [7], uid: 3))
        #expect(union.sockets == SocketSelection(ports: [1, 2]))
        #expect(RuleSet([two]).union == two.selection)
        let half = Rule(
            selection: Selection(processes: one.selection.processes, sockets: .init(ports: [1], halfClosed: true)),
            request: KeepaliveRequest())
        #expect(!union.sockets.halfClosed && RuleSet([one, half]).union.sockets.halfClosed)
        let file = rule(ProcessSelection(executable: "/x"), ports: nil)
        #expect(RuleSet([one, file]).union.processes == ProcessSelection(anyProcess: true))
        #expect(RuleSet([one, file]).union.sockets.ports == nil)
        #expect(RuleSet([file, file]).union.processes == file.selection.processes)
        #expect(RuleSet([one, rule(ProcessSelection(anyProcess: true))]).union.processes.anyProcess)
    }

    @Test func `a rule that only the interface could decide is no certain one`() throws {
        let process = ProcessSelection(pids: [1])
        func isUndecided(_ rules: [Rule], _ interface: NetworkInterface?) -> Bool {
            var found = socket(port: 5633, holders: [1])
            let end = Endpoint(address: IPAddress("fe80::2")!, port: 5633)
            found = DiscoveredSocket(
                process: found.process, holders: found.holders,
                row: SocketRow(
                    family: .ipv6, local: end, remote: end, state: .established, timer: .none, uid: 0, inode: 7,
                    interface: interface))
            let matching = rules.count > 1 ? looked(RuleIndex(rules), found) : [0]
            return AssignedSocket(found, RuleSet(rules), matching: matching)?.socket.isUndecided == true
        }
        let link = rule(process, remote: "fe80::/10%eth0")
        let eth0 = NetworkInterface(index: 3, name: UntrustedText("eth0"))
        #expect(isUndecided([link], nil) && isUndecided([link, link], nil))
        #expect(!isUndecided([link], eth0))
        #expect(!isUndecided([link, rule(process)], nil))
        #expect(isUndecided([link, rule(ProcessSelection(pids: [2]))], nil))
        #expect(!isUndecided([rule(process, remote: "fe80::/10")], nil))
    }

    @Test func `a socket gets the strictest of its matching rules only`() {
        let (a, b) = (ProcessSelection(pids: [1]), ProcessSelection(pids: [2]))
        let rules = RuleSet([
            rule(a, ports: [5633], timeout: 3600), rule(b, ports: [5633], timeout: 60), rule(a, ports: [1], timeout: 4),
        ])
        func timeout(_ port: UInt16, _ holders: [Int32]) -> Int? {
            strictest(rules, socket(port: port, holders: holders))?.firewallTimeout.count
        }
        #expect(timeout(5633, [1]) == 3600)
        #expect(timeout(5633, [2]) == 60)
        #expect(timeout(5633, [1, 2]) == 60)
        #expect(timeout(1, [1]) == 4)
        #expect(timeout(1, [2]) == nil)
        #expect(timeout(5633, [3]) == nil)
    }

    /// The rules that mean the socket, by asking each.
    private func asked(_ rules: [Rule], _ socket: DiscoveredSocket) -> [Int] {
        rules.indices.filter { number in
            let selection = rules[number].selection
            return selection.sockets.accepts(wholly: socket.row)
                && socket.holders.contains { selection.processes.pids.contains($0.pid) }
        }
    }

    private func looked(_ index: RuleIndex, _ socket: DiscoveredSocket) -> [Int] {
        index.rules(for: socket) { pid in
            Set(index.processes.indices.filter { index.processes[$0].pids.contains(pid) })
        }
    }

    @Test func `looking rules up finds those that asking each finds`() {
        var found = 0
        for _ in 0..<300 {
            let rules = (0..<Int.random(in: 2...12)).map { _ in
                let pids = Set((0..<Int.random(in: 1...2)).map { _ in Int32.random(in: 1...3) })
                let ports: Set<UInt16>? = [nil, [5633], [5633, 50000], [1]].randomElement()!
                let remote: String? = [nil, "192.0.2.1", "192.0.2.0/24", "::ffff:192.0.2.1", "192.0.2.9", "::/0"]
                    .randomElement()!
                return rule(ProcessSelection(pids: pids), ports: ports, remote: remote, listeners: Bool.random())
            }
            let index = RuleIndex(rules)
            for port: UInt16 in [5633, 1, 50000] {
                for state in [SocketRow.State.established, .listen] {
                    let holders = (1...Int.random(in: 1...3)).map { _ in Int32.random(in: 1...4) }
                    let socket = socket(port: port, holders: holders, state: state)
                    #expect(looked(index, socket) == asked(rules, socket))
                    found += looked(index, socket).count
                }
            }
        }
        #expect(found > 100)
    }

    /// Comparing each rule with each other one would take minutes here.
    @Test(.timeLimit(.minutes(10))) func `a union of many rules has all that each of them has`() {
        let count = 10_000
        let rules = (0..<count).map { number in
            rule(ProcessSelection(names: ["agent\(number)"], pids: [Int32(number)]), ports: [UInt16(number)])
        }
        let union = RuleSet(rules).union
        #expect(union.processes.names.count == count && union.sockets.ports?.count == count)
    }

    @Test(.timeLimit(.minutes(10)), arguments: ["ports", "processes", "peers"])
    func `each of many sockets finds its one of many rules`(kind: String) {
        let count = 5000
        let rules = (0..<count).map { number in
            rule(
                ProcessSelection(pids: [kind == "processes" ? Int32(number) : 1]),
                ports: [kind == "ports" ? UInt16(number) : 5633],
                remote: kind == "peers" ? "10.0.\(number / 250).\(number % 250)" : nil)
        }
        let index = RuleIndex(rules)
        let places = Dictionary(
            uniqueKeysWithValues: index.processes.enumerated().map { ($1.pids.first!, Set([$0])) })
        for number in 0..<count {
            let socket = socket(
                port: kind == "ports" ? UInt16(number) : 5633,
                holders: [kind == "processes" ? Int32(number) : 1],
                peer: kind == "peers" ? "10.0.\(number / 250).\(number % 250)" : "192.0.2.1")
            #expect(index.rules(for: socket) { places[$0] ?? [] } == [number])
        }
    }
}

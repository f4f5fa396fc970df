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
        _ processes: ProcessSelection, ports: Set<UInt16>? = [5633], remote: String? = nil, timeout: Int = 3600
    ) -> Rule {
        let sockets = SocketSelection(ports: ports, remote: remote.flatMap { AddressRange($0) })
        return Rule(
            selection: Selection(processes: processes, sockets: sockets),
            request: KeepaliveRequest(firewallTimeout: Seconds(timeout)))
    }

    private func socket(port: UInt16, holders: [Int32]) -> DiscoveredSocket {
        let process = ProcessIdentity(
            pid: holders[0], name: UntrustedText("x"), executable: nil, uid: 0, startTime: 1, networkNamespace: 1)
        let here = Endpoint(address: IPAddress("198.51.100.1")!, port: 50000)
        let there = Endpoint(address: IPAddress("192.0.2.1")!, port: port)
        return DiscoveredSocket(
            process: process, holders: holders.map { SocketHolder(pid: $0, fd: 3) },
            row: SocketRow(
                family: .ipv4, local: here, remote: there, state: .established, timer: .none, uid: 0, inode: 7))
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
            return RuleSet(rules).isUndecided(about: found) { $1.pids.contains($0) }
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
            rules.request(for: socket(port: port, holders: holders)) { $1.pids.contains($0) }?.firewallTimeout.count
        }
        #expect(timeout(5633, [1]) == 3600)
        #expect(timeout(5633, [2]) == 60)
        #expect(timeout(5633, [1, 2]) == 60)
        #expect(timeout(1, [1]) == 4)
        #expect(timeout(1, [2]) == nil)
        #expect(timeout(5633, [3]) == nil)
    }
}

import Testing

@testable import SockaliveCore

@Suite struct MetricsTests {
    private func rule(_ text: String, timeout: Int = 3600, idle: Int? = nil, enabled: Bool = true) -> Rule {
        Rule(
            selection: Selection(processes: ProcessSelection(pids: [1]), sockets: SocketSelection(ports: nil)),
            request: KeepaliveRequest(firewallTimeout: Seconds(timeout), idle: idle, enabled: enabled), text: text)
    }

    private func result(rule: Int) -> SocketResult {
        let address = Endpoint(address: IPAddress("192.0.2.1")!, port: 5633)
        let process = ProcessIdentity(
            pid: 1, name: UntrustedText("x"), executable: nil, uid: 0, startTime: 1, networkNamespace: 1)
        let socket = DiscoveredSocket(
            process: process, holders: [],
            row: SocketRow(
                family: .ipv4, local: address, remote: address, state: .established, timer: .none, uid: 0, inode: 7))
        var result = SocketResult(socket: socket, failure: .overwritten, isFailedAction: true)
        result.rule = rule
        return result
    }

    /// The lines of one metric, in their order.
    private func lines(_ name: String, _ rules: [Rule], _ results: [SocketResult] = []) -> [String] {
        let text = Metrics(results, rules: RuleSet(rules), time: 1, duration: 2).text
        return text.split(separator: "\n").map(String.init).filter {
            $0.hasPrefix("sockalive_\(name){") || $0.hasPrefix("sockalive_\(name) ")
        }
    }

    @Test func `each rule has its samples, in the order of the file, also with nothing to count`() {
        let rules = [rule("--process a"), rule("--process b"), rule("--process c")]
        let results = [result(rule: 2), result(rule: 0), result(rule: 2)]
        for name in ["candidates", "failed"] {
            #expect(
                lines(name, rules, results).filter { !$0.contains("(unknown rule)") } == [
                    #"sockalive_\#(name){rule="--process a"} 1"#, #"sockalive_\#(name){rule="--process b"} 0"#,
                    #"sockalive_\#(name){rule="--process c"} 2"#,
                ])
        }
        #expect(lines("last_run_duration_seconds", rules) == ["sockalive_last_run_duration_seconds 2.0"])
        #expect(lines("build_info", rules) == ["sockalive_build_info{version=\"\(sockaliveVersion)\"} 1"])
        for name in ["protected", "set", "answered", "silent", "longest_idle_seconds"] {
            #expect(lines(name, rules).count == 3)
        }
    }

    @Test func `a process without an answer counts as failed, of an unknown rule where there are several`() {
        let failure = ProcessFailure(pid: 7, name: nil, failure: .overwritten)
        func lines(_ rules: [Rule], _ failures: [ProcessFailure]) -> [Substring] {
            Metrics([], failures, rules: RuleSet(rules), time: 1, duration: 2).text.split(separator: "\n")
                .filter { $0.hasPrefix("sockalive_failed{") }
        }
        #expect(lines([rule("a")], [failure]) == [#"sockalive_failed{rule="a"} 1"#])
        for failures in [[], [failure]] {
            #expect(
                lines([rule("a"), rule("b")], failures) == [
                    #"sockalive_failed{rule="a"} 0"#, #"sockalive_failed{rule="b"} 0"#,
                    #"sockalive_failed{rule="(unknown rule)"} \#(failures.count)"#,
                ])
        }
    }

    @Test func `rules of one text are one series`() {
        let rules = [rule("--off"), rule("--off"), rule("--idle 1")]
        #expect(
            lines("candidates", rules, [result(rule: 0), result(rule: 1)])
                == [#"sockalive_candidates{rule="--off"} 2"#, #"sockalive_candidates{rule="--idle 1"} 0"#])
    }

    @Test(arguments: [
        (#"a\b"#, #"a\\b"#), (#"a"b"#, #"a\"b"#), ("a\nb", #"a\nb"#), ("ä 🙂", "ä 🙂"), (#"\""#, #"\\\""#),
        ("\r\n", "\r\\n"), ("a}b,c=d", "a}b,c=d"),
    ])
    func `what ends a label's value is escaped`(text: String, shown: String) {
        let text = Metrics([], rules: RuleSet([rule(text)]), time: 1, duration: 2).text
        #expect(text.contains("\nsockalive_candidates{rule=\"\(shown)\"} 0\n"), "\(text)")
    }

    @Test func `many rules share a series, and a long one is cut`() {
        let rules = (0..<10_000).map { rule("--pid \($0)") }
        let results = [result(rule: 0), result(rule: 99), result(rule: 100), result(rule: 9999)]
        let samples = lines("candidates", rules, results)
        #expect(samples.count == 101)
        #expect(samples.first == #"sockalive_candidates{rule="--pid 0"} 1"#)
        #expect(
            samples.suffix(2) == [
                #"sockalive_candidates{rule="--pid 99"} 1"#, #"sockalive_candidates{rule="(other rules)"} 2"#,
            ])
        let long = lines("candidates", [rule(String(repeating: "x", count: 4000))])
        #expect(long == ["sockalive_candidates{rule=\"" + String(repeating: "x", count: 255) + "…\"} 0"])
    }

    @Test func `a socket counts to the strictest rule that means it`() {
        let rules = RuleSet([
            rule("0", timeout: 4, enabled: false), rule("1"), rule("2", timeout: 600), rule("3", timeout: 600, idle: 9),
            rule("4", timeout: 600, idle: 9), rule("5", timeout: 60),
        ])
        #expect(rules.strictest(of: []) == nil)
        #expect(rules.strictest(of: [0]) == 0)
        #expect(rules.strictest(of: [0, 1]) == 1)
        #expect(rules.strictest(of: [0, 1, 2]) == 2)
        #expect(rules.strictest(of: [0, 1, 2, 3, 4]) == 3)
        #expect(rules.strictest(of: [0, 1, 2, 3, 4, 5]) == 5)
    }
}

/// Which sockets, and what they need.
package struct Rule: Equatable, Sendable {
    package let selection: Selection
    package let request: KeepaliveRequest
    /// As it was written; the metrics name it by this.
    package let text: String

    package init(selection: Selection, request: KeepaliveRequest, text: String = "") {
        self.selection = selection
        self.request = request
        self.text = text
    }
}

/// The rules of one run, at least one. They share one pass over `/proc`.
package struct RuleSet: Equatable, Sendable {
    package let rules: [Rule]

    package init(_ rules: [Rule]) {
        precondition(!rules.isEmpty)
        self.rules = rules
    }

    /// Finds all that any rule may mean; of one rule, exactly that.
    package var union: Selection { Selection(unionOf: rules.map(\.selection)) }

    /// What all rules want, where they agree.
    package var sharedRequest: KeepaliveRequest? {
        rules.allSatisfy { $0.request == rules[0].request } ? rules[0].request : nil
    }

    /// The rule that a socket counts to, of those that match it: of the rules that want keepalive on, the first with the
    /// smallest firewall timeout, then idle time, then interval.
    func strictest(of matching: [Int]) -> Int? {
        matching.min { one, two in
            let (one, two) = (rules[one].request, rules[two].request)
            guard one.wanted.enabled == two.wanted.enabled else { return one.wanted.enabled }
            guard one.firewallTimeout == two.firewallTimeout else { return one.firewallTimeout < two.firewallTimeout }
            return (one.wanted.idle, one.wanted.interval) < (two.wanted.idle, two.wanted.interval)
        }
    }
}

/// A socket that some rule matches, with what it needs.
struct AssignedSocket {
    var socket: DiscoveredSocket
    let request: KeepaliveRequest
    /// The number of the strictest rule.
    var rule = 0
}

extension Snapshot {
    /// Each socket that some rule matches, with the strictest of the rules that match it. A single rule matches whatever
    /// was found by it.
    ///
    /// - Parameters:
    ///   - limits: what is not asked of processes.
    ///   - places: what is known of where they run.
    func assigned(
        _ rules: RuleSet, _ procfs: ProcFS, _ limits: ProcessLimits = ProcessLimits(), _ places: ProcessPlaces? = nil
    ) -> [AssignedSocket] {
        guard rules.rules.count > 1 else {
            let rule = rules.rules[0]
            return sockets.map { AssignedSocket($0, onlyRule: rule) }
        }
        let index = RuleIndex(rules.rules)
        let matcher = ProcessMatcher(index.processes, procfs, limits, places ?? ProcessPlaces(procfs: procfs))
        return sockets.compactMap { socket in
            AssignedSocket(socket, rules, matching: index.rules(for: socket, matching: matcher.matching))
        }
    }
}

extension AssignedSocket {
    fileprivate init(_ socket: DiscoveredSocket, onlyRule rule: Rule) {
        self.init(socket: socket, request: rule.request)
        self.socket.isUndecided = rule.selection.sockets.acceptsPeer(of: socket.row) == nil
    }

    /// nil if no rule matches.
    ///
    /// - Parameter matching: the numbers of the rules that match it.
    init?(_ socket: DiscoveredSocket, _ rules: RuleSet, matching: [Int]) {
        guard let rule = rules.strictest(of: matching) else { return nil }
        let matching = matching.map { rules.rules[$0] }
        guard let request = KeepaliveRequest.strictest(matching.map(\.request)) else { return nil }
        var socket = socket
        // Rules may match, and none of them does for certain.
        socket.isUndecided = matching.allSatisfy { $0.selection.sockets.acceptsPeer(of: socket.row) == nil }
        self.init(socket: socket, request: request, rule: rule)
    }
}

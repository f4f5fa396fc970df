/// Which sockets, and what they need.
public struct Rule: Equatable, Sendable {
    public let selection: Selection
    public let request: KeepaliveRequest

    public init(selection: Selection, request: KeepaliveRequest) {
        self.selection = selection
        self.request = request
    }
}

/// The rules of one run, at least one. They share one pass over `/proc`.
public struct RuleSet: Equatable, Sendable {
    public let rules: [Rule]

    public init(_ rules: [Rule]) {
        precondition(!rules.isEmpty)
        self.rules = rules
    }

    /// Finds all that any rule may mean; of one rule, exactly that.
    public var union: Selection { rules.dropFirst().reduce(rules[0].selection) { $0.union($1.selection) } }

    /// What all rules want, where they agree.
    public var sharedRequest: KeepaliveRequest? {
        rules.allSatisfy { $0.request == rules[0].request } ? rules[0].request : nil
    }

    /// What a socket needs: the strictest of the rules that mean it; nil where none does.
    ///
    /// - Parameter matches: whether a process is one of a rule's.
    func request(for socket: DiscoveredSocket, matches: (Int32, ProcessSelection) -> Bool) -> KeepaliveRequest? {
        guard rules.count > 1 else { return rules[0].request }
        // Where nobody may see who holds it, it is counted as the process's with which it was found.
        let holders = socket.holders.isEmpty ? [socket.process.pid] : Set(socket.holders.map(\.pid)).sorted()
        let requests = rules.filter { rule in
            rule.selection.sockets.accepts(wholly: socket.row)
                && holders.contains { matches($0, rule.selection.processes) }
        }.map(\.request)
        return KeepaliveRequest.strictest(requests)
    }
}

extension Snapshot {
    /// Each socket that some rule means, with what it needs.
    func assigned(_ rules: RuleSet, _ procfs: ProcFS) -> [(socket: DiscoveredSocket, request: KeepaliveRequest)] {
        let matcher = ProcessMatcher(procfs: procfs)
        return sockets.compactMap { socket in
            rules.request(for: socket, matches: matcher.matches).map { (socket, $0) }
        }
    }
}

/// Asks `/proc` once a process and a rule.
private final class ProcessMatcher {
    private struct Question: Hashable {
        let pid: Int32
        let selection: ProcessSelection
    }

    private let procfs: ProcFS
    private var answers: [Question: Bool] = [:]

    init(procfs: ProcFS) {
        self.procfs = procfs
    }

    func matches(_ pid: Int32, _ selection: ProcessSelection) -> Bool {
        let question = Question(pid: pid, selection: selection)
        if let answer = answers[question] { return answer }
        let answer = ProcessFinder(procfs: procfs, selection: selection).matches(pid)
        answers[question] = answer
        return answer
    }
}

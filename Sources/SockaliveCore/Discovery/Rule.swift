/// Which sockets, and what they need.
package struct Rule: Equatable, Sendable {
    package let selection: Selection
    package let request: KeepaliveRequest

    package init(selection: Selection, request: KeepaliveRequest) {
        self.selection = selection
        self.request = request
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
    package var union: Selection { rules.dropFirst().reduce(rules[0].selection) { $0.union($1.selection) } }

    /// What all rules want, where they agree.
    package var sharedRequest: KeepaliveRequest? {
        rules.allSatisfy { $0.request == rules[0].request } ? rules[0].request : nil
    }

    /// What a socket needs: the strictest of the rules that mean it; nil where none does.
    ///
    /// - Parameter matches: whether a process is one of a rule's.
    func request(for socket: DiscoveredSocket, matches: (Int32, ProcessSelection) -> Bool) -> KeepaliveRequest? {
        KeepaliveRequest.strictest(rules(for: socket, matches).map(\.request))
    }

    private func rules(for socket: DiscoveredSocket, _ matches: (Int32, ProcessSelection) -> Bool) -> [Rule] {
        guard rules.count > 1 else { return rules }
        // Where nobody may see who holds it, it is counted as the process's with which it was found.
        let holders = socket.holders.isEmpty ? [socket.process.pid] : Set(socket.holders.map(\.pid)).sorted()
        return rules.filter { rule in
            rule.selection.sockets.accepts(wholly: socket.row)
                && holders.contains { matches($0, rule.selection.processes) }
        }
    }

    /// Rules may mean the socket, and none of them does for certain.
    func isUndecided(about socket: DiscoveredSocket, matches: (Int32, ProcessSelection) -> Bool) -> Bool {
        rules(for: socket, matches).allSatisfy { $0.selection.sockets.acceptsPeer(of: socket.row) == nil }
    }
}

/// A socket that some rule matches, with what it needs.
struct AssignedSocket {
    let socket: DiscoveredSocket
    let request: KeepaliveRequest
}

extension Snapshot {
    func assigned(_ rules: RuleSet, _ procfs: ProcFS) -> [AssignedSocket] {
        let matcher = ProcessMatcher(procfs: procfs)
        return sockets.compactMap { socket in
            guard let request = rules.request(for: socket, matches: matcher.matches) else { return nil }
            var socket = socket
            socket.isUndecided = rules.isUndecided(about: socket, matches: matcher.matches)
            return AssignedSocket(socket: socket, request: request)
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
    private var finders: [ProcessSelection: ProcessFinder] = [:]

    init(procfs: ProcFS) {
        self.procfs = procfs
    }

    func matches(_ pid: Int32, _ selection: ProcessSelection) -> Bool {
        let question = Question(pid: pid, selection: selection)
        if let answer = answers[question] { return answer }
        let finder = finders[selection] ?? ProcessFinder(procfs: procfs, selection: selection)
        finders[selection] = finder
        let answer = finder.matches(pid)
        answers[question] = answer
        return answer
    }
}

extension ProbeRun {
    /// The report of a run that only probes.
    public func results(
        for snapshot: Snapshot, _ rules: RuleSet, _ procfs: ProcFS, progress: (Progress) -> Void = { _ in }
    ) -> [SocketResult] {
        let assigned = snapshot.assigned(rules, procfs)
        return zip(results(for: assigned.map(\.socket), progress: progress), assigned).map { probe, assigned in
            var result = SocketResult(probe, method: method)
            result.request = assigned.request
            return result
        }
    }

    /// Proves what an injection did: every socket that it could treat is asked.
    public func proving(_ results: [SocketResult], progress: (Progress) -> Void = { _ in }) -> [SocketResult] {
        let indices = results.indices.filter { results[$0].failure == nil }
        var proved = results
        for (index, probe) in zip(indices, self.results(for: indices.map { results[$0].socket }, progress: progress)) {
            proved[index].add(probe)
        }
        return proved
    }
}

extension SocketResult {
    init(_ probe: ProbeResult, method: Method) {
        guard let before = probe.before else {
            self.init(socket: probe.socket, failure: probe.failure ?? .overwritten, isFailedAction: false)
            return
        }
        let outcome = KeepaliveOperation.Outcome(
            before: before, after: before, planned: before, idleSeconds: probe.idleSeconds, action: .none)
        self.init(socket: probe.socket, outcome: outcome, method: method, rights: probe.rights, pausedMicroseconds: 0)
        add(probe)
    }

    mutating func add(_ probe: ProbeResult) {
        pausedMicroseconds += probe.pausedMicroseconds
        self.probe = probe.answer
        failure = failure ?? probe.failure
        // Not put back, and so not known.
        if probe.before != nil { after = probe.after }
    }
}

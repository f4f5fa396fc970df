/// The result of `list`, `inject` and `probe` as JSON (Docs/sockalive-output.schema.json). A value that could not be read
/// is null and never left out. Keys are in alphabetic order.
package struct RunReport {
    private let command: String
    private let dryRun: Bool
    private let rules: RuleSet
    private let results: [SocketResult]
    private let failures: [ProcessFailure]
    private let summary: Summary

    private static let schema = 1

    package init(
        command: String, dryRun: Bool, isProbed: Bool = false, rules: RuleSet, results: [SocketResult],
        failures: [ProcessFailure] = []
    ) {
        self.command = command
        self.dryRun = dryRun
        self.rules = rules
        self.results = results
        self.failures = failures
        summary = Summary(results, failures, isProbed: isProbed)
    }

    /// Writes the document part by part.
    ///
    /// - Parameter sink: takes the next part; false if nobody reads it.
    /// - Returns: whether the whole document was written.
    package func write(to sink: @escaping (UnsafeRawBufferPointer) -> Bool) -> Bool {
        var json = JSONWriter(sink: sink)
        json.object(write)
        return json.finish()
    }

    private func write(_ json: inout JSONWriter) {
        // Null where the rules differ.
        let request = rules.sharedRequest
        json.member("command", command)
        json.member("dry_run", dryRun)
        json.array("failed_processes") { json in
            for failure in failures { json.element { failure.write(to: &$0) } }
        }
        json.member("firewall_timeout", request?.firewallTimeout.count)
        json.member("schema", Self.schema)
        json.array("sockets") { json in
            for result in results where !json.isBroken { json.element { result.write(to: &$0) } }
        }
        json.object("summary", summary.write)
        json.object("wanted", request?.wanted) { $1.write(to: &$0) }
    }
}

/// Counts over all sockets of a run.
package struct Summary: Sendable {
    package let candidates: Int
    package let set: Int
    package let unchanged: Int
    package let failed: Int
    package let wouldSet: Int
    /// Neither set nor failed: in a dry run nobody knows what would become of them.
    package let unknown: Int
    package let answered: Int?
    package let silent: Int?

    /// - Parameters:
    ///   - failures: of matching processes that could not be looked at; they count as failed.
    ///   - isProbed: connections were asked, even where there was none.
    package init(_ results: [SocketResult], _ failures: [ProcessFailure] = [], isProbed: Bool = false) {
        var (set, wouldSet, unchanged) = (0, 0, 0)
        var (failed, answers, unknown) = (failures.count, 0, 0)
        var silent = 0
        // By their numbers: a loop over the results themselves would copy each.
        for index in results.indices {
            let isFailed = results[index].failure != nil
            if isFailed { failed += 1 }
            switch results[index].action {
            case .set: set += 1
            case .wouldSet: wouldSet += 1
            case .unchanged: unchanged += 1
            case .none: unknown += isFailed ? 0 : 1
            case .failed: break
            }
            guard let probe = results[index].probe else { continue }
            answers += 1
            if !probe.answered { silent += 1 }
        }
        candidates = results.count
        (self.set, self.wouldSet, self.unchanged) = (set, wouldSet, unchanged)
        self.failed = failed
        self.unknown = unknown
        let isProbed = isProbed || answers > 0
        answered = isProbed ? answers - silent : nil
        self.silent = isProbed ? silent : nil
    }

    fileprivate func write(to json: inout JSONWriter) {
        json.member("answered", answered)
        json.member("candidates", candidates)
        json.member("failed", failed)
        json.member("set", set)
        json.member("silent", silent)
        json.member("unchanged", unchanged)
    }
}

extension SocketResult {
    fileprivate func write(to json: inout JSONWriter) {
        let row = socket.row
        let place = socket.process.place
        json.member("action", action.rawValue)
        write("before", before, to: &json)
        json.member("cgroup", place?.cgroup.text.decoded)
        json.member("command", socket.process.arguments?.list)
        json.object("container", place?.cgroup.container?.value) { json, container in
            json.member("id", container.isName ? nil : container.text)
            json.member("name", place?.containerName?.decoded)
        }
        json.member("cookie", quoted: row.cookie)
        json.member("crash_safe", crashSafe)
        json.object("error", failure) { $1.write(to: &$0) }
        json.member("exe", socket.process.executable?.decoded)
        json.member("family", row.family.rawValue)
        json.member("fd", socket.holder?.fd)
        json.member("firewall_timeout", request.firewallTimeout.count)
        json.array("holders") { json in
            for holder in socket.holders {
                json.element {
                    $0.member("fd", holder.fd)
                    $0.member("pid", holder.pid)
                }
            }
        }
        json.member("idle_seconds", idleSeconds)
        json.member("inode", row.inode)
        write("keepalive", after, to: &json)
        json.object("local") { row.write(row.local, to: &$0) }
        json.member("method", method?.rawValue)
        json.member("netns", socket.networkNamespace)
        json.member("next_probe_seconds", nextProbeSeconds)
        json.member("paused_microseconds", pausedMicroseconds)
        json.member("pid", socket.process.pid)
        json.object("pod", place?.cgroup.pod?.value) { json, pod in
            json.member("name", place?.podName?.name.decoded)
            json.member("namespace", place?.podName?.namespace?.decoded)
            json.member("uid", pod.text)
        }
        json.object("probe", probe) { json, answer in
            json.member("answered", answer.answered)
            json.member("milliseconds", answer.milliseconds.map { ($0 * 10).rounded() / 10 })
        }
        json.member("process", socket.process.name.decoded)
        json.object("remote") { row.write(row.remote, to: &$0) }
        json.member("remembered", settingsSource.isRemembered)
        json.object("restarted_wait", restartedWait) { json, wait in
            json.member("call", wait.call.name)
            json.member("seconds", wait.milliseconds.map { Double($0) / 1000 })
        }
        json.member("rights", rights?.rawValue)
        json.member("state", row.state.rawValue)
        json.member("uid", socket.process.uid)
        json.member("unit", place?.unit)
        json.member("verdict", verdict?.rawValue)
        json.object("wanted") { request.wanted.write(to: &$0) }
    }

    /// Where nobody asked the socket, what its timer tells; no table has the rest.
    private func write(_ key: StaticString, _ settings: KeepaliveSettings?, to json: inout JSONWriter) {
        if let settings { return json.object(key, settings.write) }
        json.object(key, keepaliveByTimer) { json, reading in
            json.member("count", Int?.none)
            json.member("enabled", reading.enabled)
            json.member("idle", reading.idle)
            json.member("interval", Int?.none)
            json.member("user_timeout", Int?.none)
        }
    }
}

extension KeepaliveSettings {
    /// All times are seconds, TCP_USER_TIMEOUT too.
    fileprivate func write(to json: inout JSONWriter) {
        json.member("count", count)
        json.member("enabled", enabled)
        json.member("idle", idle)
        json.member("interval", interval)
        json.member("user_timeout", Double(userTimeout) / 1000)
    }
}

extension KeepaliveRequest.Wanted {
    func write(to json: inout JSONWriter) {
        json.member("count", count)
        json.member("enabled", enabled)
        json.member("idle", idle)
        json.member("interval", interval)
        json.member("user_timeout", userTimeout.map { Double($0) / 1000 })
    }
}

extension SocketRow {
    /// A v4-mapped address is shown as IPv4. The scope is null for others than link-local ones, and where it is not
    /// known.
    fileprivate func write(_ end: Endpoint, to json: inout JSONWriter) {
        json.member("address", end.address.unmapped.description)
        json.member("port", end.port)
        json.member("scope", scope(of: end)?.label.decoded)
    }
}

extension ProcessFailure {
    fileprivate func write(to json: inout JSONWriter) {
        json.object("error") { failure.write(to: &$0) }
        json.member("pid", pid)
        json.member("process", name?.decoded)
    }
}

extension SocketFailure {
    fileprivate func write(to json: inout JSONWriter) {
        json.member("code", code)
        json.member("message", message)
        json.member("remedy", remedy)
    }
}

import SystemPackage

/// What is done with one socket once it is reached: read, plan, set in order, read back.
struct KeepaliveOperation: SocketOperation {
    /// nil only reads.
    let request: KeepaliveRequest?
    /// Plans, and touches nothing.
    let isDryRun: Bool
    /// Asks for the idle time too, where the socket table did not tell it: one call more inside the target.
    var readsIdleTime = true

    struct Outcome: Sendable {
        var before: KeepaliveSettings
        /// As read back; in a dry run still what was read before.
        var after: KeepaliveSettings
        /// Where the plan leads.
        var planned: KeepaliveSettings
        var idleSeconds: Double?
        var action: SocketAction
    }

    func run(on socket: inout some SocketOptions & ~Copyable) throws -> Outcome {
        let before = try socket.keepalive()
        let idleSeconds = readsIdleTime ? try idleSeconds(of: &socket) : nil
        var outcome = Outcome(
            before: before, after: before, planned: before, idleSeconds: idleSeconds, action: .none)
        guard let request else { return outcome }
        let plan = KeepalivePlan(current: before, request: request)
        outcome.planned = before.applying(plan)
        guard case .set(let steps) = plan else {
            outcome.action = .unchanged
            return outcome
        }
        outcome.action = isDryRun ? .wouldSet : .set
        guard !isDryRun else { return outcome }
        outcome.after = try socket.apply(steps, to: before)
        guard outcome.after == outcome.planned else {
            throw SocketFailure.overwritten
        }
        return outcome
    }

    /// nil where the socket does not tell. A target that cannot be reached any more ends the operation.
    private func idleSeconds(of socket: inout some SocketOptions & ~Copyable) throws -> Double? {
        do {
            return try socket.tcpInfo().idleSeconds
        } catch is Errno {
            return nil
        }
    }
}

/// What was done with a socket.
public enum SocketAction: String, Sendable {
    case none, set, unchanged
    case wouldSet = "would_set"
    case failed
}

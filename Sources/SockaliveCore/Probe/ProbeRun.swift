import Glibc

/// Asks connections for a sign of life, all of them at once.
///
/// First every socket is armed; then they are looked at until each has answered or its time is over; and each
/// is put back as soon as that is settled. Nothing is held in between: an open duplicate of a descriptor
/// would keep the target's close(2) from sending its FIN, and a held thread would stand still for
/// as long as the peer takes. Between its three short visits a socket is its owner's alone.
package struct ProbeRun {
    package struct Progress: Sendable {
        package let candidates: Int
        package let answered: Int
    }

    private let wait: Double
    private let control: RunControl
    private let access: SocketAccess
    private let reader: TCPInfoReader
    private let clock = ProbeClock()
    private let known: (DiscoveredSocket) -> KeepaliveSettings?
    private let willArm: (Int, KeepaliveSettings) -> Void

    /// - Parameters:
    ///   - wait: how long an answer may take, counted from when the probe can leave.
    ///   - known: settings that a worker found which was killed before it put them back.
    ///   - willArm: told of a socket's settings before they are changed.
    init(
        procfs: ProcFS, access: SocketAccess, wait: Seconds, control: RunControl,
        known: @escaping (DiscoveredSocket) -> KeepaliveSettings? = { _ in nil },
        willArm: @escaping (Int, KeepaliveSettings) -> Void = { _, _ in }
    ) {
        self.wait = Double(wait.count) * 1000
        self.control = control
        self.access = access
        self.known = known
        self.willArm = willArm
        reader = TCPInfoReader(procfs: procfs, access: access)
    }

    var method: Method { access.method }

    /// What came of it, in the sockets' order. Whatever ends the run early, everything is put back first.
    ///
    /// - Parameters:
    ///   - areTimersCurrent: nothing was set since the sockets were found.
    ///   - report: told of each result as soon as the socket is put back.
    func results(
        for sockets: [DiscoveredSocket], areTimersCurrent: Bool = true, progress: (Progress) -> Void = { _ in },
        report: (Int, ProbeResult) -> Void = { _, _ in }
    ) -> [ProbeResult] {
        var candidates = sockets.map { Candidate(socket: $0) }
        let start = clock.milliseconds
        for index in candidates.indices {
            arm(&candidates[index], index, areTimersCurrent)
            if candidates[index].isSettled { report(index, candidates[index].result) }
        }
        // Putting back takes about as long.
        let reserve = Duration.milliseconds((clock.milliseconds - start) * 2 + 100)
        watch(&candidates, reserve, progress, report)
        return candidates.map(\.result)
    }

    private func arm(_ candidate: inout Candidate, _ index: Int, _ areTimersCurrent: Bool) {
        if let reason = control.stopReason {
            candidate.settle(.failed(reason.failure))
            return
        }
        do {
            let arming = ProbeArming(
                clock: clock, keepaliveByTimer: areTimersCurrent ? candidate.socket.row.keepaliveByTimer : nil,
                known: known(candidate.socket)
            ) { willArm(index, $0) }
            let result = try access.apply(arming, to: candidate.socket)
            candidate.armed = result.outcome
            candidate.pausedMicroseconds += result.pausedMicroseconds
            candidate.rights = result.rights
            if let error = result.outcome.error, let holder = candidate.socket.holder {
                finish(&candidate, .failed(access.failure(for: error, holder: holder)))
            } else if result.outcome.pending == nil {
                candidate.settle(.notAsked)
            }
        } catch {
            candidate.settle(.failed(error))
        }
    }

    private func watch(
        _ candidates: inout [Candidate], _ reserve: Duration, _ progress: (Progress) -> Void,
        _ report: (Int, ProbeResult) -> Void
    ) {
        var waiting = candidates.indices.filter { !candidates[$0].isSettled }
        while !waiting.isEmpty {
            let reason = control.stopReason(ahead: reserve)
            for index in waiting {
                let stopped = reason.map { Candidate.End.failed($0.unanswered) }
                if let end = stopped ?? outcome(of: &candidates[index], reserve) {
                    finish(&candidates[index], end)
                    report(index, candidates[index].result)
                }
            }
            waiting.removeAll { candidates[$0].isSettled }
            progress(Progress(candidates: candidates.count, answered: candidates.count { $0.hasAnswered }))
            if !waiting.isEmpty { sleep(waiting.compactMap { candidates[$0].armed?.pending?.due }) }
        }
    }

    /// How it ended with one socket; nil as long as an answer may still come.
    private func outcome(of candidate: inout Candidate, _ reserve: Duration) -> Candidate.End? {
        guard var pending = candidate.armed?.pending else { return .notAsked }
        do {
            let start = clock.milliseconds
            let seen = try reader.tcpInfo(of: candidate.socket)
            let now = clock.milliseconds
            candidate.pausedMicroseconds += seen.pausedMicroseconds
            let answer = pending.answer(seenIn: start...now, seen.outcome)
            candidate.armed?.pending = pending
            if seen.outcome.isClosed { return .reset }
            if let answer { return .answered(answer) }
            // By ptrace the next look is up to 500 ms away.
            let left = Duration.milliseconds(pending.end(wait: wait) - now + 500) + reserve
            let canWait = control.stopReason(ahead: left) == nil
            return pending.conclusion(at: now, seen.outcome, wait: wait, canWait: canWait).map(Candidate.End.init)
        } catch {
            return .failed(error)
        }
    }

    /// Puts the settings back, whatever the end.
    private func finish(_ candidate: inout Candidate, _ end: Candidate.End) {
        candidate.settle(end)
        guard let armed = candidate.armed, armed.isTouched else { return }
        do {
            let result = try access.apply(ProbeRestoring(found: armed.found), to: candidate.socket)
            candidate.pausedMicroseconds += result.pausedMicroseconds
            candidate.after = result.outcome.after
        } catch {
            candidate.after = nil
            candidate.failure = candidate.failure ?? error
        }
    }

    /// Sleeps until the next look: soon after a probe has left, then less and less often.
    private func sleep(_ due: [Double]) {
        WorkerProgress.enter(.waiting)
        let now = clock.milliseconds
        let latest = due.filter { $0 <= now }.max() ?? now
        let next = due.filter { $0 > now }.min() ?? .infinity
        let gap = reader.gap(after: now - latest)
        usleep(UInt32(1000 * min(gap, max(0.1, next - now))))
    }
}

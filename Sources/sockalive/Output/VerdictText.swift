import SockaliveCore

/// A verdict with what it means for this connection, in words.
struct VerdictText {
    let result: SocketResult

    var text: String {
        switch result.verdict {
        case .protected: "\(word)\(waitingData ?? nextProbe)"
        case .atRisk where result.after?.hasProbeMarker == true: "\(word): left by a killed probe, inject mends it"
        case .atRisk: "\(word)\(userTimeout ?? waitingData ?? deadline)"
        case .unprotected: "\(word)\(deadline)"
        case .expired: "\(word): idle for longer than \(result.request.firewallTimeout)"
        case nil: word
        }
    }

    var word: String {
        switch result.verdict {
        case .protected: "protected"
        case .atRisk: "at risk"
        case .unprotected: "unprotected"
        case .expired: "expired"
        case nil where result.subflowDiffers: "unknown: on by a subflow, not by its MPTCP socket"
        case nil where result.settingsSource == .oldMemory: "unknown: remembered, not seen"
        case nil: "unknown: \(result.failure?.code ?? "not read")"
        }
    }

    /// When the kernel next sends a probe, if nothing moves on it. Whole minutes are exact enough.
    private var nextProbe: String {
        guard let seconds = result.nextProbeSeconds.map({ Int($0) }) else { return "" }
        let rounded = Seconds(seconds < 60 ? seconds : (seconds + 30) / 60 * 60)
        return seconds == 0 ? ": probe due now" : ": next probe in \(rounded)"
    }

    /// What leaves next while data waits: no keepalive probe then.
    private var waitingData: String? {
        guard result.after?.isTimely(against: result.request.firewallTimeout) == true else { return nil }
        return switch result.socket.row.timer {
        case .windowProbe(let seconds): ": window probe in \(Seconds(Int(seconds)))"
        case .retransmission(let seconds) where result.verdict == .atRisk: ": data resent in \(Seconds(Int(seconds)))"
        case .retransmission: ": data in flight"
        case .none, .keepalive, .other: nil
        }
    }

    /// What ends the connection before the firewall does.
    private var userTimeout: String? {
        guard let after = result.after, after.endsBeforeThirdProbe,
            after.isTimely(against: result.request.firewallTimeout)
        else { return nil }
        return ": user timeout \(after.userTimeoutText)"
    }

    /// When the firewall forgets the connection, if nothing moves on it.
    private var deadline: String {
        guard let idle = result.idleSeconds else { return "" }
        return ": dropped in \(Seconds(result.request.firewallTimeout.count - Int(idle)))"
    }
}

/// What a peer said to a probe; nil where none was asked.
struct AnswerText {
    private let answer: ProbeAnswer?

    init(_ result: SocketResult) {
        answer = result.probe
    }

    var cell: String? {
        answer.map { answer in
            if let ago = answer.secondsAgo { return "\(Seconds(Int(ago))) ago" }
            return answer.milliseconds.map { "\(($0 * 10).rounded() / 10) ms" } ?? "silent"
        }
    }

    var sentence: String? {
        answer.flatMap { answer in
            cell.map { !answer.answered ? $0 : answer.secondsAgo == nil ? "answered in \($0)" : "answered \($0)" }
        }
    }
}

/// What the target loses by its stop, for `--verbose`; nothing as a rule.
struct RestartText {
    let words: String

    init(_ result: SocketResult) {
        guard let wait = result.restartedWait else {
            words = ""
            return
        }
        let time = wait.milliseconds.map { " of \(Seconds(max(1, ($0 + 999) / 1000)))" } ?? ""
        words = "; its wait\(time) in \(wait.call.name) begins anew"
    }
}

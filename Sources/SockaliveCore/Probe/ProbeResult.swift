/// What came of asking one connection.
package struct ProbeResult: Sendable {
    let socket: DiscoveredSocket
    /// nil where nothing could be read.
    let before: KeepaliveSettings?
    /// As read back when all was put back; nil where that could not be done.
    let after: KeepaliveSettings?
    let idleSeconds: Double?
    let pausedMicroseconds: Int
    let rights: Rights?
    /// nil for a listener, and where the run ended before the answer's time was over.
    let answer: ProbeAnswer?
    let failure: SocketFailure?
}

/// One socket on its way through a probe run.
struct Candidate {
    enum End {
        case answered(Double)
        case answeredBefore(Double)
        case silent
        case reset
        case notAsked
        case failed(SocketFailure)

        init(_ conclusion: PendingProbe.Conclusion) {
            switch conclusion {
            case .answeredBefore(let age): self = .answeredBefore(age)
            case .silent: self = .silent
            }
        }
    }

    let socket: DiscoveredSocket
    var armed: ProbeArming.Outcome?
    var pausedMicroseconds = 0
    var rights: Rights?
    var after: KeepaliveSettings?
    var failure: SocketFailure?
    private var answer: ProbeAnswer?
    private(set) var isSettled = false

    init(socket: DiscoveredSocket) {
        self.socket = socket
    }

    var hasAnswered: Bool { answer?.answered == true }

    mutating func settle(_ end: End) {
        isSettled = true
        after = armed?.found
        switch end {
        case .answered(let milliseconds): answer = ProbeAnswer(answered: true, milliseconds: milliseconds)
        case .answeredBefore(let age):
            answer = ProbeAnswer(answered: true, milliseconds: nil, secondsAgo: age / 1000)
        case .silent: answer = ProbeAnswer(answered: false, milliseconds: nil)
        case .reset:
            answer = ProbeAnswer(answered: false, milliseconds: nil)
            failure = .reset
        case .notAsked: break
        case .failed(let failure): self.failure = failure
        }
    }

    var result: ProbeResult {
        ProbeResult(
            socket: socket, before: armed?.found, after: after,
            idleSeconds: socket.row.state.hasPeer ? armed?.tcpInfo.idleSeconds : nil,
            pausedMicroseconds: pausedMicroseconds, rights: rights, answer: answer, failure: failure)
    }
}

extension SocketFailure {
    static let reset = SocketFailure(
        .other, .connectionReset, "the connection is closed: the peer, or a firewall, answered the probe with a reset",
        remedy: "the other end has forgotten it; the application has to connect anew")
}

extension StopReason {
    /// For a connection that was asked, and had no time to answer.
    var unanswered: SocketFailure {
        switch self {
        case .timeout(let limit):
            SocketFailure(
                .other, .timedOut, "no answer yet when the run's time limit of \(limit) came",
                remedy: "give it more with --timeout, or less with --wait")
        case .signal(let name):
            SocketFailure(.other, .canceled, "no answer yet when it was stopped by \(name)", remedy: "run again")
        }
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

    /// - Parameter method: by which it was reached.
    mutating func add(_ probe: ProbeResult, method: Method? = nil) {
        if probe.before != nil, settingsSource.isRemembered {
            settingsSource = .socket
            self.method = method
        }
        pausedMicroseconds += probe.pausedMicroseconds
        self.probe = probe.answer
        failure = failure ?? probe.failure
        // Not put back, and so not known.
        if probe.before != nil { after = probe.after }
    }
}

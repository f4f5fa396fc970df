import SystemPackage

/// What came of the trials.
struct TrialResults: Equatable, Sendable {
    /// nil: not tried.
    var pidfd: TrialOutcome?
    var ptrace: TrialOutcome?
    /// Whether sock_diag answered with the same socket; nil: not tried.
    var lookup: Result<Bool, Errno>?
    /// Why nothing was tried.
    var absence: TrialAbsence?

    func outcome(_ method: Method) -> TrialOutcome? {
        method == .pidfd ? pidfd : ptrace
    }

    /// The methods that can be counted on, the gentlest first.
    var methods: [Method] {
        [.pidfd, .ptrace].filter { method in
            switch outcome(method) {
            case .worked, .filtered: true
            case .failed, nil: false
            }
        }
    }
}

/// What the outcome of the trials means. Pure.
struct TrialChecks {
    let results: TrialResults
    let ownSeccomp: Int
    /// What `--method auto` takes: where that fails, nothing works without being told.
    let auto: Method

    var all: [Check] {
        if let absence = results.absence {
            return [.problem("trial", absence.message, remedy: absence.remedy)]
        }
        return [check(.pidfd), check(.ptrace), lookup].compactMap(\.self)
    }

    private func check(_ method: Method) -> Check? {
        let name = "try_\(method.rawValue)"
        guard let outcome = results.outcome(method) else {
            return .note(name, "not tried: ptrace injection is for x86-64", remedy: "nothing to do where pidfd works")
        }
        let alternative: Method = method == .pidfd ? .ptrace : .pidfd
        let alternativeWorks = results.methods.contains(alternative)
        switch outcome {
        case .worked(let settings, let paused):
            let values = "\(settings.idle)/\(settings.interval)/\(settings.count)"
            let pause = method == .pidfd ? "it never stopped" : "a thread paused for \(paused) µs"
            return .ok(name, "\(values) set, read back by the child; \(pause)")
        case .filtered:
            return .note(
                name, "the child could be held, but not called from: it inherits the filter on sockalive itself",
                remedy: "targets without a filter may be reached; for others run on the host itself")
        case .failed(let failure):
            let rest = alternativeWorks ? " (\(alternative.rawValue) works)" : ""
            return .obstacle(
                name, isFatal: method == auto || !alternativeWorks, failure.message + rest,
                remedy: remedy(failure))
        }
    }

    private func remedy(_ failure: SocketFailure) -> String {
        if failure.kind == .permission && ownSeccomp != 0 {
            return "the filter on sockalive itself does it: run on the host, or allow the call in the profile"
        }
        return failure.remedy ?? "run it on the host itself, as root"
    }

    /// Without it, finding sockets is slower, and nothing else.
    private var lookup: Check? {
        switch results.lookup {
        case nil: return nil
        case .success(true): return .ok("try_sock_diag", "found the child's connection")
        case .success(false):
            return .note("try_sock_diag", "answered with another socket; /proc/net/tcp serves instead")
        case .failure(let error):
            return .note(
                "try_sock_diag", "does not answer (\(error.name)); /proc/net/tcp serves instead, a little slower",
                remedy: error == .noSuchFileOrDirectory ? "modprobe tcp_diag" : "nothing to do")
        }
    }
}

/// How a run ended, and the exit code that says so (sysexits.h where it has one).
public enum RunStatus: Int32, Sendable {
    case done = 0
    case someFailed = 1
    case noCandidate = 3
    case usage = 64
    case unsupported = 69
    case locked = 75
    case noPermission = 77

    /// - Parameters:
    ///   - require: no candidate at all is a failure.
    ///   - check: a socket that is not protected is a failure.
    public init(results: [SocketResult], require: Bool = false, check: Bool = false) {
        let failures = results.compactMap(\.failure)
        if results.isEmpty {
            self = require ? .noCandidate : .done
        } else if failures.count == results.count, failures.allSatisfy({ $0.kind == .permission }) {
            self = .noPermission
        } else if failures.count == results.count, failures.allSatisfy({ $0.kind == .unsupported }) {
            self = .unsupported
        } else if !failures.isEmpty || results.contains(where: { $0.probe?.answered == false }) {
            self = .someFailed
        } else if check, results.contains(where: { $0.verdict != .protected }) {
            self = .someFailed
        } else {
            self = .done
        }
    }
}

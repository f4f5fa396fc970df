import SockaliveCore

/// Why the demo could not be given: one line for people, and what the exit code says.
struct DemoFailure: Error {
    /// The line says what was wrong and what to do about it.
    let line: String
    let status: RunStatus

    init(_ line: String, _ status: RunStatus = .someFailed) {
        self.line = line
        self.status = status
    }

    /// - Returns: nil for an error of another kind.
    init?(_ error: any Error) {
        switch error {
        case let failure as DemoFailure: self = failure
        case let error as ChildProcessError: self.init("\(error)")
        default: return nil
        }
    }

    /// Runs `body`; a failure becomes one line on standard error and the exit code that belongs to it.
    static func report(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch {
            guard let failure = DemoFailure(error) else { throw error }
            StandardStreams.error("demo: \(failure.line)")
            throw failure.status
        }
    }
}

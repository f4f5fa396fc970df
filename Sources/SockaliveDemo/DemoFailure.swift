import SockaliveCore

/// Why the demo could not be given: one line for people, and what the exit code says.
package struct DemoFailure: Error {
    /// The line says what was wrong and what to do about it.
    package let line: String
    package let status: RunStatus

    init(_ line: String, _ status: RunStatus = .someFailed) {
        self.line = line
        self.status = status
    }

    /// - Returns: nil for an error of another kind.
    package init?(_ error: any Error) {
        switch error {
        case let failure as DemoFailure: self = failure
        case let error as ChildProcessError: self.init("\(error)")
        default: return nil
        }
    }
}

/// The process that started this one has ended: nobody is left to report to.
package struct ParentGone: Error {}

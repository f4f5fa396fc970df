import ArgumentParser

/// Why the demo could not be given: one line for people, and the exit code.
struct DemoFailure: Error {
    /// The line says what was wrong and what to do about it.
    let line: String
    let code: ExitCode

    init(_ line: String, code: ExitCode = .failure) {
        self.line = line
        self.code = code
    }
}

extension ExitCode {
    /// EX_UNAVAILABLE of sysexits.h: this kernel or machine cannot do it.
    static let unavailable = ExitCode(69)
    /// EX_NOPERM of sysexits.h.
    static let notPermitted = ExitCode(77)
}

/// Runs `body`; a failure becomes one line on standard error and the exit code that belongs to it.
func reportingDemoFailure(_ body: () throws -> Void) throws {
    do {
        try body()
    } catch let failure as DemoFailure {
        Screen.warn("sockalive: demo: \(failure.line)")
        throw failure.code
    }
}

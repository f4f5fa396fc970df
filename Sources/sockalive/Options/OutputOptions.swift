import ArgumentParser
import SockaliveCore

/// How much is said, and in which form.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print nothing but errors.")
    var quiet = false

    @Flag(help: "Tell every step on standard error.")
    var verbose = false

    @Flag(help: "Print one JSON document.")
    var json = false

    func validate() throws {
        if quiet && verbose { throw ValidationError("--quiet and --verbose exclude each other") }
    }
}

/// How a run that changes something is bounded.
struct RunOptions: ParsableArguments {
    @Flag(help: "No candidate at all is a failure (exit 3).")
    var require = false

    @Option(
        help: .init("The whole run takes no longer (default: 10s).", valueName: "d"),
        transform: ArgumentTransform.seconds)
    var timeout = Self.defaultTimeout

    static let defaultTimeout = Seconds(10)

    @Option(
        help: .init("One run at a time, by this lock file.", valueName: "file"),
        transform: ArgumentTransform.filePath)
    var lock: String?

    @Flag(help: "Take no lock.")
    var noLock = false

    @Flag(help: "Also log changes and failures to the system log.")
    var syslog = false

    @Option(
        help: .init("Write metrics for Prometheus to this file.", valueName: "file"),
        transform: ArgumentTransform.filePath)
    var metrics: String?

    func validate() throws {
        if noLock && lock != nil { throw ValidationError("--lock and --no-lock exclude each other") }
    }

    /// With --quiet nothing else says why the exit code is 3.
    func reportAbsence(_ results: [SocketResult], _ configuration: RunConfiguration, _ output: OutputOptions) {
        guard results.isEmpty && require && output.quiet else { return }
        StandardStreams.error("no candidate: looked for \(configuration.description)")
    }
}

/// How long a probe waits.
struct WaitOptions: ParsableArguments {
    static let defaultTime = Seconds(5)

    @Option(
        help: .init("How long to wait for the answer to a probe (default: 5s).", valueName: "d"),
        transform: ArgumentTransform.wait)
    var wait: Seconds?

    var time: Seconds { wait ?? Self.defaultTime }
}

extension OutputOptions: PlainOptions {
    static let byDefault: Self = {
        var options = Self()
        (options.quiet, options.verbose, options.json) = (false, false, false)
        return options
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        switch name {
        case "--quiet": quiet = true
        case "--verbose": verbose = true
        case "--json": json = true
        default: return false
        }
        return true
    }
}

extension RunOptions: PlainOptions {
    static let byDefault: Self = {
        var options = Self()
        (options.require, options.timeout, options.syslog) = (false, Self.defaultTimeout, false)
        (options.lock, options.noLock, options.metrics) = (nil, false, nil)
        return options
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        switch name {
        case "--require": require = true
        case "--timeout": timeout = try ArgumentTransform.seconds(value())
        case "--lock": lock = try ArgumentTransform.filePath(value())
        case "--no-lock": noLock = true
        case "--syslog": syslog = true
        case "--metrics": metrics = try ArgumentTransform.filePath(value())
        default: return false
        }
        return true
    }
}

extension WaitOptions: PlainOptions {
    static let byDefault: Self = {
        var options = Self()
        options.wait = nil
        return options
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        guard name == "--wait" else { return false }
        wait = try ArgumentTransform.wait(value())
        return true
    }
}

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
    var timeout = Seconds(10)

    @Option(
        help: .init("One run at a time, by this lock file.", valueName: "file"),
        transform: ArgumentTransform.filePath)
    var lock: String?

    @Flag(help: "Take no lock.")
    var noLock = false

    func validate() throws {
        if noLock && lock != nil { throw ValidationError("--lock and --no-lock exclude each other") }
    }
}

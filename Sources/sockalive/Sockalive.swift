import ArgumentParser
import SockaliveCore

@main
struct Sockalive: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sockalive",
        abstract: "Turns TCP keepalive on inside the live connections of a running process.",
        version: "sockalive \(sockaliveVersion)"
    )
}

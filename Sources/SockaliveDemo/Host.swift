import Glibc
import SockaliveCore
import SystemPackage

/// One of the two hosts, as it looks from inside its own network namespace.
struct Host {
    private let addresses: [String]
    private let gateway: String
    /// Where the stage is heard and answered: this process's standard input.
    private let stage = Channel(descriptor: .standardInput)

    /// The name that the host's end of its link has in either namespace of a host.
    static let interface = "eth0"

    init(addresses: [String], gateway: String) {
        self.addresses = addresses
        self.gateway = gateway
    }

    /// Joins the network, then runs `body`; a failure is reported to the stage.
    func run(_ body: (Channel) throws -> Void) throws {
        do {
            try join()
            try body(stage)
        } catch {
            guard let failure = DemoFailure(error) else { throw error }
            try stage.send(failure.line + "\n")
        }
    }

    /// Gets a network of its own, has the stage plug the link in, and gives it its addresses.
    private func join() throws {
        do {
            try Namespaces.network.enter()
        } catch {
            throw DemoFailure("cannot get a network namespace: \(error)", .unsupported)
        }
        try stage.send("ready\n")
        guard stage.line() == "plugged" else { throw ParentGone() }
        var commands = addresses.map { "address add \($0)/24 dev \(Self.interface)" }
        commands += ["link set \(Self.interface) up", "route add default via \(gateway)"]
        try Tool.ip().run(["-batch", "-"], input: commands.joined(separator: "\n") + "\n")
    }
}

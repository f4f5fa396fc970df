import SockaliveCore
import SystemPackage

/// The network: agent and server, each in a namespace of its own, plugged into the firewall.
struct Lab {
    let firewall: Firewall
    private let agent: Channel
    private let server: Channel

    static func build() throws -> Lab {
        let (ip, firewall) = (try Tool.ip(), Firewall(nft: try Tool.nft()))
        try firewall.install()
        try forwardPackets()
        let server = try plugIn("server", DemoServer.commandName, behind: DemoSettings.firewallOnServerSide, ip)
        let agent = try plugIn("agent", DemoAgent.commandName, behind: DemoSettings.firewallOnAgentSide, ip)
        return Lab(firewall: firewall, agent: agent, server: server)
    }

    /// Has the agent send one message on each session, and tells what came back.
    func speak() throws -> [DemoSession: Echo] {
        try agent.send("speak\n")
        var echoes: [DemoSession: Echo] = [:]
        for session in DemoSession.allCases {
            guard let word = agent.line(within: 2 * DemoSettings.echoTimeout), let echo = Echo(word: word) else {
                throw DemoFailure("the agent does not say what came back")
            }
            echoes[session] = echo
        }
        return echoes
    }

    private static func forwardPackets() throws {
        do {
            let file = try FileDescriptor.open("/proc/sys/net/ipv4/ip_forward", .writeOnly)
            try file.closeAfter { _ = try file.writeAll("1".utf8) }
        } catch {
            throw DemoFailure("cannot let the firewall forward packets: \(error)", .unsupported)
        }
    }

    /// Starts a host and lays a cable to it; returns when it is up.
    private static func plugIn(
        _ role: String, _ command: String, behind gateway: String, _ ip: Tool
    ) throws -> Channel {
        let (ours, theirs) = try Channel.pair()
        let host = try ChildProcess.spawnSelf(as: role, [command], descriptors: [(0, theirs.descriptor)])
        theirs.close()
        try expect("ready", from: ours, role)
        let commands = """
            link add \(role) type veth peer name \(Host.interface) netns \(host.pid)
            address add \(gateway)/24 dev \(role)
            link set \(role) up

            """
        try ip.run(["-batch", "-"], input: commands)
        try ours.send("plugged\n")
        try expect("up", from: ours, role)
        return ours
    }

    /// A host that cannot go on says why instead of `word`.
    private static func expect(_ word: String, from host: Channel, _ role: String) throws {
        let answer = host.line(within: 10)
        guard answer == word else {
            throw DemoFailure("the \(role) does not come up: \(answer ?? "it does not answer")", .unsupported)
        }
    }
}

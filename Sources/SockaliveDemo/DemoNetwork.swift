import Glibc
import SockaliveCore
import SystemPackage

/// The demo's network: agent and server each have a host in its own network namespace, linked to the firewall.
struct DemoNetwork {
    let firewall: Firewall
    private let agent: Channel
    private let server: Channel

    static func build() throws -> DemoNetwork {
        let (ip, firewall) = (try Tool.ip(), Firewall(nft: try Tool.nft()))
        try firewall.install()
        try forwardPackets()
        let server = try startHost("server", DemoServer.commandName, gateway: DemoSettings.firewallOnServerSide, ip)
        let agent = try startHost("agent", DemoAgent.commandName, gateway: DemoSettings.firewallOnAgentSide, ip)
        return DemoNetwork(firewall: firewall, agent: agent, server: server)
    }

    /// Makes the agent send one message on each session, and returns the results.
    func exchangeMessages() throws -> [DemoSession: Echo] {
        try agent.send("exchange\n")
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
            try KernelFile.write("1", to: "/proc/sys/net/ipv4/ip_forward")
        } catch {
            throw DemoFailure("cannot let the firewall forward packets: \(error)", .unsupported)
        }
    }

    /// Starts a host and links it to the firewall. Returns when the host is ready.
    private static func startHost(
        _ role: String, _ command: String, gateway: String, _ ip: Tool
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
        try ours.send("linked\n")
        try expect("up", from: ours, role)
        return ours
    }

    /// A host that fails sends the reason instead of `word`.
    private static func expect(_ word: String, from host: Channel, _ role: String) throws {
        let answer = host.line(within: 10)
        guard answer == word else {
            throw DemoFailure("the \(role) does not come up: \(answer ?? "it does not answer")", .unsupported)
        }
    }
}

/// One of the two sessions of the agent.
enum DemoSession: String, CaseIterable {
    case injected, untouched

    /// Both addresses are in TEST-NET-1, which RFC 5737 reserves for documentation.
    var address: String {
        switch self {
        case .injected: "192.0.2.1"
        case .untouched: "192.0.2.2"
        }
    }
}

/// Addresses and times.
enum DemoSettings {
    /// The agent is in TEST-NET-2 (RFC 5737). The firewall has the last address of both networks.
    static let agentAddress = "198.51.100.1"
    static let firewallOnAgentSide = "198.51.100.254"
    static let firewallOnServerSide = "192.0.2.254"
    static let port: UInt16 = 5633

    /// Seconds after which the firewall forgets an established connection.
    static let firewallTimeout = 5
    /// Seconds for which both sessions stay idle.
    static let idle = 9
    /// Seconds for which the agent waits for an echo.
    static let echoTimeout = 3
}

/// A program of the system. The demo needs `ip` and `nft`.
package struct Tool {
    let path: String

    static func ip() throws -> Tool { try all()[0] }
    static func nft() throws -> Tool { try all()[1] }

    /// Finds the programs. The error for missing programs names their Debian packages.
    @discardableResult
    package static func all() throws -> [Tool] {
        let wanted = [(name: "ip", package: "iproute2"), (name: "nft", package: "nftables")]
        let found = wanted.map { search($0.name) }
        let missing = zip(wanted, found).filter { $0.1 == nil }.map(\.0)
        guard missing.isEmpty else {
            let names = missing.map(\.name).joined(separator: " and ")
            let packages = missing.map(\.package).joined(separator: " ")
            throw DemoFailure(
                "\(names) not found; on Debian or Ubuntu: apt-get install \(packages)", .unsupported)
        }
        return found.compactMap { $0 }.map(Tool.init)
    }

    /// Searches PATH, and for each `…/bin` in it also `…/sbin`. On Debian, nft is in /usr/sbin, which an ordinary
    /// user's PATH does not have.
    private static func search(_ name: String) -> String? {
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        for folder in path.split(separator: ":") {
            let beside = folder.hasSuffix("/bin") ? [folder.dropLast(3) + "sbin"] : []
            for candidate in [folder] + beside where access("\(candidate)/\(name)", X_OK) == 0 {
                return "\(candidate)/\(name)"
            }
        }
        return nil
    }

    /// Runs the program with `input` on its standard input, and returns its output. The error contains its first line.
    @discardableResult
    func run(_ arguments: [String], input: String = "") throws -> String {
        let (ours, theirs) = try Channel.pair()
        let child = try ChildProcess.spawn(
            path, [path] + arguments,
            descriptors: [(0, theirs.descriptor), (1, theirs.descriptor), (2, theirs.descriptor)])
        theirs.close()
        defer { ours.close() }
        try ours.send(input)
        ours.finishSending()
        let output = ours.readToEnd()
        guard child.wait() == .exited(0) else {
            let reason = output.split(separator: "\n").first ?? "no reason given"
            throw DemoFailure("\(path): \(reason)", .unsupported)
        }
        return output
    }
}

/// One of the two sessions of the demo's agent.
enum DemoSession: String, CaseIterable {
    case injected, untouched

    /// Both lie in TEST-NET-1, which RFC 5737 keeps free for documentation.
    var address: String {
        switch self {
        case .injected: "192.0.2.1"
        case .untouched: "192.0.2.2"
        }
    }
}

/// Who is where, and how long everything takes.
enum DemoSettings {
    /// The agent lies in TEST-NET-2 (RFC 5737), the firewall has the last address of either net.
    static let agentAddress = "198.51.100.1"
    static let firewallOnAgentSide = "198.51.100.254"
    static let firewallOnServerSide = "192.0.2.254"
    static let port: UInt16 = 5633

    /// Seconds after which the firewall forgets an established connection.
    static let firewallTimeout = 5
    /// Seconds for which both sessions are left idle.
    static let idle = 9
    /// Seconds for which the agent waits for an echo.
    static let echoTimeout = 3
}

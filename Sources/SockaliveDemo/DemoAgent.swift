import Glibc
import SockaliveCore
import SystemPackage

/// The host of the agent. Its two sessions are idle until the parent process requests a message.
package enum DemoAgent {
    package static let commandName = "demo-agent"

    package static func run() throws {
        let host = Host(addresses: [DemoSettings.agentAddress], gateway: DemoSettings.firewallOnAgentSide)
        try host.run { parent in
            try setComm()
            let connections = try DemoSession.allCases.map {
                try TCP.connect(to: $0.address, port: DemoSettings.port).rawValue
            }
            try parent.send("up\n")
            while parent.line() == "exchange" {
                let echoes = exchangeMessages(on: connections)
                try parent.send(echoes.map { $0.word + "\n" }.joined())
            }
        }
    }

    /// Sets the comm that `sockalive` searches for (proc(5): a process may write its own).
    private static func setComm() throws {
        do {
            try KernelFile.write("beremote", to: "/proc/self/comm")
        } catch {
            throw DemoFailure("cannot take the name beremote: \(error)", .unsupported)
        }
    }

    /// Sends one message on each connection, then waits for all echoes together.
    private static func exchangeMessages(on connections: [Int32]) -> [Echo] {
        let message = Array("are you there?\n".utf8)
        let start = ContinuousClock.now
        let deadline = Deadline(seconds: DemoSettings.echoTimeout)
        var echoes: [Int32: Echo] = [:]
        for connection in connections where send(connection, message, message.count, Int32(MSG_NOSIGNAL)) < 0 {
            echoes[connection] = .broken("\(Errno(rawValue: errno))")
        }
        while case let waiting = connections.filter({ echoes[$0] == nil }), !waiting.isEmpty {
            let ready = readable(waiting, until: deadline)
            if ready.isEmpty { break }
            for connection in ready { echoes[connection] = receiveEcho(on: connection, since: start) }
        }
        return connections.map { echoes[$0] ?? .silent }
    }

    private static func receiveEcho(on connection: Int32, since start: ContinuousClock.Instant) -> Echo {
        var bytes = [UInt8](repeating: 0, count: 512)
        switch recv(connection, &bytes, bytes.count, 0) {
        case 0: return .broken("closed by the server")
        case ..<0: return .broken("\(Errno(rawValue: errno))")
        default: return .answered(milliseconds: (.now - start) / .milliseconds(1))
        }
    }
}

/// The result of one message. The agent reports it to its parent process as one line.
enum Echo: Equatable {
    case answered(milliseconds: Double)
    case silent
    case broken(String)

    var isAnswered: Bool { milliseconds != nil }

    /// The time from the message to its echo.
    var milliseconds: Double? {
        if case .answered(let milliseconds) = self { milliseconds } else { nil }
    }

    /// The line that the agent writes.
    var word: String {
        switch self {
        case .answered(let milliseconds): "answered \(milliseconds)"
        case .silent: "silent"
        case .broken(let reason): "broken \(reason)"
        }
    }

    init?(word: String) {
        let parts = word.split(separator: " ", maxSplits: 1)
        switch (parts.first, parts.count) {
        case ("answered", 2):
            guard let milliseconds = Double(parts[1]) else { return nil }
            self = .answered(milliseconds: milliseconds)
        case ("broken", 2): self = .broken(String(parts[1]))
        case ("silent", 1): self = .silent
        default: return nil
        }
    }
}

import Glibc
import SockaliveCore
import SystemPackage

/// One of the two hosts: a process in its own network namespace.
struct Host {
    private let addresses: [String]
    private let gateway: String
    /// The channel to the parent process, which owns the firewall's end of the link.
    private let parent = Channel(descriptor: .standardInput)

    /// The name of the link in the host's network namespace.
    static let interface = "eth0"

    init(addresses: [String], gateway: String) {
        self.addresses = addresses
        self.gateway = gateway
    }

    /// Joins the network, then runs `body`. A failure is reported to the parent process.
    func run(_ body: (Channel) throws -> Void) throws {
        do {
            try join()
            try body(parent)
        } catch {
            guard let failure = DemoFailure(error) else { throw error }
            try parent.send(failure.line + "\n")
        }
    }

    /// Enters a new network namespace, waits until the parent has made the link, and configures it.
    private func join() throws {
        do {
            try Namespaces.network.enter()
        } catch {
            throw DemoFailure("cannot get a network namespace: \(error)", .unsupported)
        }
        try parent.send("ready\n")
        guard parent.line() == "linked" else { throw ParentGone() }
        var commands = addresses.map { "address add \($0)/24 dev \(Self.interface)" }
        commands += ["link set \(Self.interface) up", "route add default via \(gateway)"]
        try Tool.ip().run(["-batch", "-"], input: commands.joined(separator: "\n") + "\n")
    }
}

/// The host of the backup server: it echoes everything that it receives.
package enum DemoServer {
    package static let commandName = "demo-server"

    package static func run() throws {
        let host = Host(addresses: DemoSession.allCases.map(\.address), gateway: DemoSettings.firewallOnServerSide)
        try host.run { parent in
            let listener = try TCP.listen(port: DemoSettings.port)
            try parent.send("up\n")
            serve(listener.rawValue)
        }
    }

    private static func serve(_ listener: Int32) {
        var clients: [Int32] = []
        while true {
            for ready in readable([listener] + clients, until: nil) {
                if ready == listener {
                    clients.append(accept(listener, nil, nil))
                } else if !echo(ready) {
                    clients.removeAll { $0 == ready }
                    close(ready)
                }
            }
        }
    }

    private static func echo(_ client: Int32) -> Bool {
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = recv(client, &bytes, bytes.count, 0)
        return count > 0 && send(client, bytes, count, Int32(MSG_NOSIGNAL)) == count
    }
}

/// The few TCP calls that the demo's agent and server make.
enum TCP {
    /// The corresponding C functions are `socket` and `connect`.
    static func connect(to address: String, port: UInt16) throws -> FileDescriptor {
        let connection = try socket()
        guard withAddress(address, port, { Glibc.connect(connection.rawValue, $0, $1) }) == 0 else {
            throw DemoFailure("cannot connect to \(address):\(port): \(Errno(rawValue: errno))")
        }
        return connection
    }

    /// The corresponding C functions are `socket`, `bind` and `listen`.
    static func listen(port: UInt16) throws -> FileDescriptor {
        let listener = try socket()
        guard withAddress("0.0.0.0", port, { bind(listener.rawValue, $0, $1) }) == 0,
            Glibc.listen(listener.rawValue, 8) == 0
        else {
            throw DemoFailure("cannot listen on port \(port): \(Errno(rawValue: errno))")
        }
        return listener
    }

    private static func socket() throws -> FileDescriptor {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = Glibc.socket(AF_INET, type, 0)
        guard descriptor >= 0 else { throw DemoFailure("cannot make a socket: \(Errno(rawValue: errno))") }
        return FileDescriptor(rawValue: descriptor)
    }

    private static func withAddress(
        _ address: String, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var internet = sockaddr_in()
        internet.sin_family = sa_family_t(AF_INET)
        internet.sin_port = port.bigEndian
        inet_pton(AF_INET, address, &internet.sin_addr)
        let size = MemoryLayout<sockaddr_in>.size
        return withUnsafePointer(to: &internet) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(size)) }
        }
    }
}

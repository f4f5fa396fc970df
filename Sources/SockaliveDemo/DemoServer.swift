import Glibc
import SockaliveCore

/// The backup server: echoes whatever it hears.
package enum DemoServer {
    package static let commandName = "demo-server"

    package static func run() throws {
        let host = Host(addresses: DemoSession.allCases.map(\.address), gateway: DemoSettings.firewallOnServerSide)
        try host.run { stage in
            let listener = try TCP.listen(port: DemoSettings.port)
            try stage.send("up\n")
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

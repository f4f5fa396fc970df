/// The keepalive settings of a socket in another process. `read-keepalive` reads them, and not `sockalive`.
struct SocketKeepalive: Equatable {
    var enabled: Bool
    var idle: Int
    var interval: Int
    var count: Int
    /// Milliseconds.
    var userTimeout = 0

    /// The defaults of Linux for a new socket.
    static let untouched = SocketKeepalive(enabled: false, idle: 7200, interval: 75, count: 9)

    /// The settings for a firewall timeout of 60 minutes.
    static let forOneHour = SocketKeepalive(enabled: true, idle: 600, interval: 60, count: 50)

    static func read(pid: Int32, descriptors: [Int32]) throws -> [SocketKeepalive] {
        let program = try Program.run([TestProgram.path("read-keepalive"), "\(pid)"] + descriptors.map { "\($0)" })
        guard program.status == 0 else { throw Unreadable(reason: program.output) }
        return program.output.split(separator: "\n").map { line in
            let values = line.split(separator: " ").compactMap { Int($0) }
            return SocketKeepalive(
                enabled: values[0] != 0, idle: values[1], interval: values[2], count: values[3],
                userTimeout: values[4])
        }
    }

    struct Unreadable: Error {
        let reason: String
    }
}

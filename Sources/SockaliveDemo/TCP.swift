import Glibc
import SystemPackage

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

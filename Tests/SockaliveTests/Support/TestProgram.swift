import Foundation
import Glibc
import Testing

/// The programs that `Tests/Programs/build.sh` builds. The targets exist as four kinds of programs.
enum TestProgram {
    enum Kind: String, CaseIterable {
        case dynamic64 = "64"
        case static64 = "64-static"
        case dynamic32 = "32"
        case static32 = "32-static"
    }

    /// The kinds that this machine's compiler can build.
    static let kinds = Kind.allCases.filter { FileManager.default.fileExists(atPath: path("victim-odd", $0)) }

    static let makesEveryKind = kinds.count == Kind.allCases.count

    /// Beside the test bundle, so they are built once and not for every run.
    static let folder: String = {
        let folder = Program.path("programs")
        let built = try? Program.run([script("Programs/build.sh"), folder], deadline: .seconds(120))
        if built?.status != 0 { Issue.record("the test programs were not built: \(built?.errors ?? "no shell")") }
        return folder
    }()

    /// build.sh writes the stamp last.
    static var areBuilt: Bool { FileManager.default.fileExists(atPath: path("stamp")) }

    static func path(_ name: String) -> String {
        "\(folder)/\(name)"
    }

    static func path(_ name: String, _ kind: Kind) -> String {
        "\(folder)/\(name)-\(kind.rawValue)"
    }

    /// A copy that may be executed and not read. The kernel makes such a process undumpable (fs/exec.c, would_dump),
    /// and only a process with CAP_SYS_PTRACE can access it.
    static func unreadable(_ name: String, _ kind: Kind) throws -> String {
        let copy = "\(folder)/unreadable-\(name)-\(kind.rawValue)"
        if !FileManager.default.fileExists(atPath: copy) {
            try Program.copy(path(name, kind), to: copy)
        }
        chmod(copy, 0o711)
        return copy
    }

    /// The path of a script in the folder `Tests`.
    static func script(_ name: String) -> String {
        let support = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        return support.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(name).path
    }
}

/// A victim that makes one call, and prints its result as one line when it is told to end.
final class Sleeper {
    let pid: Int32
    let name: String
    private let process: Child

    init(_ program: String, _ kind: TestProgram.Kind, _ argument: String, launcher: [String] = []) throws {
        name = "\(argument) (\(kind.rawValue))"
        process = try Child(launcher + [TestProgram.path(program, kind), argument])
        let ready = try #require(process.output.line(until: Deadline(.seconds(10))))
        pid = try #require(Int32(ready.prefix { $0 != " " }))
    }

    /// The line that it prints when it is woken, or when it wakes by itself.
    func result(waking: Bool = true) -> String {
        if waking { process.input.write("\n") }
        return process.output.line(until: Deadline(.seconds(10))) ?? "\(name) sleeps on"
    }
}

/// A program that prints "PID … PORT" and echoes the data of one connection to that port; and the connection's peer.
final class Echoer {
    let pid: Int32
    let port: Int
    private let process: Child
    private let peer: Int32

    init(_ command: [String]) throws {
        process = try Child(command)
        let ready = try #require(process.output.line(until: Deadline(.seconds(60)))).split(separator: " ")
        pid = try #require(Int32(ready[0]))
        port = try #require(Int(ready[ready.count - 1]))
        peer = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var timeout = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(peer, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(connected == 0)
    }

    deinit {
        close(peer)
    }

    var selection: [String] {
        ["--pid", "\(pid)", "--port", "\(port)"]
    }

    func echoes() -> Bool {
        var byte: UInt8 = 0x78
        return send(peer, &byte, 1, Int32(MSG_NOSIGNAL)) == 1 && recv(peer, &byte, 1, 0) == 1 && byte == 0x78
    }
}

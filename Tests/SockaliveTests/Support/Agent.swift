import Foundation
import Testing

/// A program whose connections are hard to find (`Tests/Programs/agent`), and its peer.
final class Agent {
    let pid: Int32
    /// Where its peer listens.
    let port: Int
    /// What it printed behind the port.
    let words: [String]
    let executable: String
    private let process: Child
    private let folder: TemporaryFolder

    /// - Parameter name: of the copy of the program that is started.
    init(_ how: String..., name: String = "agent", launcher: [String] = []) throws {
        folder = try TemporaryFolder()
        executable = folder.path(name)
        try Program.copy(TestProgram.path("agent"), to: executable)
        process = try Child(launcher + [executable] + how)
        let ready = try process.words(after: "ready", Deadline(.seconds(20)))
        pid = try #require(Int32(ready[0]))
        port = try #require(Int(ready[1]))
        words = Array(ready.dropFirst(2))
    }

    deinit {
        kill()
    }

    func kill() { process.kill() }

    /// The descriptors that it printed.
    var descriptors: [Int32] { words.compactMap { Int32($0) } }

    var selection: [String] { ["--pid", "\(pid)"] + ports }

    var ports: [String] { ["--port", "\(port)"] }

    /// A path in the folder of its executable.
    func path(_ name: String) -> String { folder.path(name) }

    /// Its own ends of the connections. Its peer has the same executable.
    func own(_ report: Report) -> [Report.Socket] { report.sockets.filter { $0.remote.port == port } }

    func keepalive(_ descriptors: [Int32]? = nil) throws -> [SocketKeepalive] {
        try SocketKeepalive.read(pid: pid, descriptors: descriptors ?? self.descriptors)
    }
}

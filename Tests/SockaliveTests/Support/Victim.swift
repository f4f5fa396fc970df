import Foundation
import Testing

/// A program with live TCP sessions (`victim-echo`), and its peer (`echo-peer`) at the other end.
///
/// When the initializer returns, every session is established, and both sides have reported it.
final class Victim {
    enum Mode: String {
        /// One thread for each session, each asleep in read(2).
        case read
        /// One thread asleep in poll(2).
        case poll
        /// One thread that computes without pause.
        case spin
    }

    struct Options {
        var mode = Mode.read
        var sessions = 1
        /// The address to which the victim connects. It decides the family.
        var address = "127.0.0.1"
        /// The port of the peer. 0 lets the kernel choose.
        var port = 0
        /// The name of the file, and the process's first name.
        var program = "beremote"
        /// The name that the process then gives itself.
        var name: String?
        /// Keepalive from the start: idle, interval, count.
        var keepalive: (Int, Int, Int)?
        /// TCP_USER_TIMEOUT from the start, milliseconds.
        var userTimeout: Int?
        var hasChild = false
        /// It has closed its own direction: it is in FIN_WAIT2, and its peer in CLOSE_WAIT.
        var isHalfClosed = false
        /// It has closed the last session altogether.
        var hasOrphan = false
        var isMultipath = false
        /// Where the peer listens, if that is not the address that the victim connects to.
        var peerAddress: String?
        var localPort: Int?
        /// Writes first until its send queues are full: the peer reads only when it is told to.
        var fillsQueue = false
        /// Commands that run the peer and the victim: `nsenter …`.
        var peerLauncher: [String] = []
        var launcher: [String] = []
    }

    let pid: Int32
    let child: Int32
    let port: Int
    /// The process at the other end.
    var peerPID: Int32 { peer.pid }
    let sessions: [Session]
    let executable: String
    private let peer: Child
    private let process: Child
    private let folder: TemporaryFolder

    struct Session: Equatable {
        let descriptor: Int32
        let localPort: Int
    }

    init(_ configure: (inout Options) -> Void = { _ in }) throws {
        var options = Options()
        configure(&options)
        let deadline = Deadline(.seconds(20))

        // A mapped address connects to an ordinary IPv4 listener.
        let listening = options.peerAddress ?? options.address.replacing("::ffff:", with: "")
        peer = try Child(
            options.peerLauncher + [
                TestProgram.path("echo-peer"), "listen", listening, "\(options.port)", "\(options.sessions)",
            ])
        port = try Int(#require(peer.words(after: "listening", deadline).first)) ?? 0

        // A copy, so that the executable has the name, too.
        folder = try TemporaryFolder()
        executable = folder.path(options.program)
        try Program.copy(TestProgram.path("victim-echo"), to: executable)
        process = try Child(options.launcher + [executable] + Self.arguments(options, port: port))
        let ready = try process.words(after: "ready", deadline)
        _ = try peer.words(after: "connected", deadline)
        pid = try #require(Int32(ready[0]))
        child = try #require(Int32(ready[1]))
        sessions = try ready.dropFirst(2).map { word in
            let pair = word.split(separator: ":")
            return Session(descriptor: try #require(Int32(pair[0])), localPort: try #require(Int(pair[1])))
        }
    }

    private static func arguments(_ options: Options, port: Int) -> [String] {
        var arguments = ["--mode", options.mode.rawValue]
        if let name = options.name { arguments += ["--name", name] }
        if let (idle, interval, count) = options.keepalive {
            arguments += ["--keepalive", "\(idle):\(interval):\(count)"]
        }
        if options.isHalfClosed { arguments.append("--half-close") }
        if let port = options.localPort { arguments += ["--local-port", "\(port)"] }
        if options.isMultipath { arguments.append("--mptcp") }
        if options.hasOrphan { arguments.append("--orphan") }
        if let userTimeout = options.userTimeout { arguments += ["--user-timeout", "\(userTimeout)"] }
        if options.fillsQueue { arguments.append("--fill") }
        if options.hasChild { arguments.append("--fork") }
        return arguments + ["connect", options.address, "\(port)", "\(options.sessions)"]
    }

    /// The options with which `sockalive` finds this victim and no other process.
    var selection: [String] {
        ["--pid", "\(pid)", "--port", "\(port)"]
    }

    /// The options that make `sockalive` see the peer's end of the sessions.
    var peerSelection: [String] {
        ["--pid", "\(peer.pid)", "--port", "\(port)"]
    }

    /// Makes the peer send a token over every session, whose echo does not come.
    func peerSendsInVain() throws {
        peer.input.write("echo 100\n")
        for index in sessions.indices {
            #expect(peer.output.line(until: Deadline(.seconds(10))) == "silent \(index)")
        }
    }

    /// Sends a token over every session and waits for the echoes.
    func echoes() throws -> Bool {
        peer.input.write("echo 10000\n")
        let answers = sessions.map { _ in peer.output.line(until: Deadline(.seconds(20))) }
        return answers.enumerated().allSatisfy { $1 == "echoed \($0)" }
    }

    /// From now on each echo is followed by the next token, until ``stopStream()``.
    func startStream() {
        peer.input.write("stream\n")
    }

    func stopStream() throws -> (sent: Int, received: Int) {
        peer.input.write("stop\n")
        let counts = try peer.words(after: "streamed", Deadline(.seconds(20))).compactMap { Int($0) }
        return (counts[0], counts[1])
    }

    /// Closes the sessions from the peer's end. Returns the victim's last lines and its exit code.
    func finish() -> (lines: [String], status: Int32) {
        peer.input.close()
        let deadline = Deadline(.seconds(20))
        var lines: [String] = []
        while let line = process.output.line(until: deadline) { lines.append(line) }
        if deadline.millisecondsLeft == 0 { process.kill() }
        return (lines, process.wait())
    }

    /// The real keepalive settings of the sockets, read without `sockalive`.
    func keepalive() throws -> [SocketKeepalive] {
        do {
            return try SocketKeepalive.read(pid: pid, descriptors: sessions.map(\.descriptor))
        } catch let error as SocketKeepalive.Unreadable {
            let words = process.output.line(until: Deadline(.milliseconds(100))) ?? "nothing"
            throw SocketKeepalive.Unreadable(reason: "\(error.reason)the victim said last: \(words)")
        }
    }
}

extension Child {
    /// Reads one line that begins with `word`, and returns the words after it.
    func words(after word: String, _ deadline: Deadline) throws -> [String] {
        let line = output.line(until: deadline)
        let words = (line ?? "").split(separator: " ").map(String.init)
        guard words.first == word else { throw Unexpected(due: word, came: line) }
        return Array(words.dropFirst())
    }

    struct Unexpected: Error {
        let due: String
        let came: String?
    }
}

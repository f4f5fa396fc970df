import ArgumentParser
import SockaliveCore
import SystemPackage

/// The child that the doctor tries everything on. It ends with its owner, and with this process.
final class DoctorChild: TrialTarget {
    let fd: Int32
    private let child: ChildProcess
    private let channel: Channel

    private static let timeout = 5

    init() throws(TrialAbsence) {
        do {
            let (ours, theirs) = try Channel.pair()
            defer { theirs.close() }
            child = try ChildProcess.spawnSelf(
                ["doctor-target"], descriptors: [(0, theirs.descriptor), (1, theirs.descriptor)])
            channel = ours
        } catch {
            throw TrialAbsence(
                "a child to try on could not be started: \(error)",
                remedy: "allow sockalive one more process, and /proc to be mounted")
        }
        let words = (channel.line(within: Self.timeout) ?? "").split(separator: " ")
        guard words.count == 2, words[0] == "ready", let number = Int32(words[1]) else {
            fd = -1
            throw Self.absence(words)
        }
        fd = number
    }

    deinit {
        child.kill()
        _ = child.wait()
        channel.close()
    }

    var pid: Int32 { child.pid }

    func keepalive() -> KeepaliveSettings? {
        guard (try? channel.send("keepalive\n")) != nil else { return nil }
        return channel.line(within: Self.timeout).flatMap { KeepaliveSettings(line: $0) }
    }

    private static func absence(_ words: [Substring]) -> TrialAbsence {
        guard words.count == 2, words[0] == "failed", let number = Int32(words[1]) else {
            return TrialAbsence("the child to try on said nothing", remedy: "run it again, with more memory or time")
        }
        let error = Errno(rawValue: number)
        guard [.addressNotAvailable, .networkUnreachable].contains(error) else {
            return TrialAbsence(
                "the child could not connect to itself: \(error)", remedy: "allow it TCP on the loopback")
        }
        return TrialAbsence("nothing could be tried: the loopback is down", remedy: "ip link set lo up")
    }
}

/// The child's side: it holds a connection to itself, and says what keepalive that has whenever it is asked.
struct DoctorTarget: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "doctor-target", shouldDisplay: false)

    func run() throws {
        // A parent that was gone before is noticed by the end of standard input.
        try? dieWithParent()
        let channel = Channel(descriptor: .standardInput)
        let connection: TrialConnection
        do {
            connection = try TrialConnection()
        } catch {
            try? channel.send("failed \(error.rawValue)\n")
            throw RunStatus.someFailed
        }
        try? channel.send("ready \(connection.fd)\n")
        while channel.line() != nil {
            guard let keepalive = connection.keepalive else { throw RunStatus.someFailed }
            try? channel.send(keepalive.line + "\n")
        }
    }
}

extension KeepaliveSettings {
    fileprivate var line: String { "\(enabled ? 1 : 0) \(idle) \(interval) \(count) \(userTimeout)" }

    fileprivate init?(line: String) {
        let numbers = line.split(separator: " ").compactMap { Int32($0) }
        guard numbers.count == 5 else { return nil }
        self.init(
            enabled: numbers[0] != 0, idle: numbers[1], interval: numbers[2], count: numbers[3],
            userTimeout: numbers[4])
    }
}

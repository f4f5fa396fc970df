import Foundation
import Testing

/// The JSON document of `list` and `inject`, as the schema describes it.
struct Report: Decodable {
    let schema: Int
    let command: String
    let dryRun: Bool
    let firewallTimeout: Int?
    let wanted: Keepalive?
    let sockets: [Socket]
    let failedProcesses: [FailedProcess]
    let summary: Summary

    struct FailedProcess: Decodable {
        let pid: Int32
        let process: String?
        let error: Failure
    }

    struct Keepalive: Decodable, Equatable {
        let enabled: Bool
        /// nil where nobody asked the socket itself, as the others.
        let idle: Int?
        let interval: Int?
        let count: Int?
        /// Seconds.
        let userTimeout: Double?
    }

    struct Socket: Decodable {
        let pid: Int32
        let process: String
        let exe: String?
        let command: [String]?
        let uid: UInt32
        let cgroup: String?
        let unit: String?
        let container: Container?
        let pod: Pod?
        let fd: Int32?
        let holders: [Holder]
        let inode: UInt64
        let netns: UInt64?
        let family: String
        let state: String
        let local: Endpoint
        let remote: Endpoint
        let idleSeconds: Double?
        let keepalive: Keepalive?
        let before: Keepalive?
        let nextProbeSeconds: Double?
        let verdict: String?
        let firewallTimeout: Int
        let action: String
        let method: String?
        let crashSafe: Bool?
        let rights: String?
        let cookie: String?
        let pausedMicroseconds: Int
        let remembered: Bool
        let restartedWait: RestartedWait?
        let error: Failure?
        let probe: Answer?
    }

    struct RestartedWait: Decodable, Equatable {
        let call: String
        let seconds: Double?
    }

    struct Container: Decodable, Equatable {
        let id: String?
        let name: String?
    }

    struct Pod: Decodable, Equatable {
        let uid: String
        let name: String?
        let namespace: String?
    }

    struct Answer: Decodable {
        let answered: Bool
        let milliseconds: Double?
    }

    struct Holder: Decodable, Hashable {
        let pid: Int32
        let fd: Int32
    }

    struct Endpoint: Decodable, Equatable {
        let address: String
        let port: Int
        var scope: String?
    }

    struct Failure: Decodable {
        let code: String
        let message: String
        let remedy: String?
    }

    struct Summary: Decodable, Equatable {
        let candidates: Int
        let set: Int
        let unchanged: Int
        let failed: Int
        let answered: Int?
        let silent: Int?
    }

    /// Runs `sockalive … --json` and decodes its output.
    static func of(
        _ arguments: [String], launcher: [String] = [], status: Int32 = 0, deadline: Duration = .seconds(30),
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Report {
        let lock = arguments.first == "list" || arguments.contains("--lock") ? [] : ["--no-lock"]
        let program = try Program.sockalive(arguments + lock + ["--json"], launcher: launcher, deadline: deadline)
        #expect(program.status == status, "\(program.errors)", sourceLocation: sourceLocation)
        return try Report(json: program.output)
    }

    init(json: String) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(Report.self, from: Data(json.utf8))
    }

    /// The only socket.
    var socket: Socket {
        get throws {
            #expect(sockets.count == 1)
            return try #require(sockets.first)
        }
    }
}

extension Report.Keepalive {
    /// What a socket table tells of a connection without keepalive.
    static let offByTable = Report.Keepalive(
        enabled: false, idle: nil, interval: nil, count: nil, userTimeout: nil)

    init(_ keepalive: SocketKeepalive) {
        self.init(
            enabled: keepalive.enabled, idle: keepalive.idle, interval: keepalive.interval, count: keepalive.count,
            userTimeout: Double(keepalive.userTimeout) / 1000)
    }
}

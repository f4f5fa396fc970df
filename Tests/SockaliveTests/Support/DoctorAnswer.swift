import Foundation
import Testing

/// The JSON document of `doctor`.
struct DoctorAnswer: Decodable {
    let schema: Int
    let command: String
    let firewallTimeout: Int
    let checks: [Check]
    let trials: [Trial]
    let targets: [Target]
    let summary: Summary

    struct Check: Decodable {
        let name: String
        let status: String
        let message: String
        let remedy: String?
    }

    struct Trial: Decodable {
        let method: String
        let worked: Bool?
        let pausedMicroseconds: Int?
    }

    struct Target: Decodable {
        let pid: Int32
        let process: String
        let exe: String?
        let bits: Int?
        let state: String
        let seccomp: Int
        let tracer: Tracer?
        let method: String
        let sockets: Int
        let status: String
        let message: String
        let remedy: String?
    }

    struct Tracer: Decodable {
        let pid: Int32
        let process: String
    }

    struct Summary: Decodable {
        let ok: Int
        let notes: Int
        let problems: Int
    }

    /// Runs `sockalive doctor --json`. The document must be complete, whatever the result is.
    static func of(
        _ arguments: [String], launcher: [String] = [], status: Int32 = 0,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> DoctorAnswer {
        let program = try Program.sockalive(["doctor", "--json"] + arguments, launcher: launcher)
        #expect(program.status == status, "\(program.output)\(program.errors)", sourceLocation: sourceLocation)
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let answer = try decoder.decode(DoctorAnswer.self, from: Data(program.output.utf8))
        #expect(answer.schema == 1 && answer.command == "doctor", sourceLocation: sourceLocation)
        #expect(answer.problemsWithoutRemedy.isEmpty, sourceLocation: sourceLocation)
        #expect((answer.summary.problems > 0) == (program.status == 1), sourceLocation: sourceLocation)
        return answer
    }

    /// Problems without a remedy. There must be none.
    private var problemsWithoutRemedy: [String] {
        checks.filter { $0.status == "problem" && ($0.remedy ?? "").isEmpty }.map(\.name)
            + targets.filter { $0.status == "problem" && ($0.remedy ?? "").isEmpty }.map(\.message)
    }

    func check(_ name: String) throws -> Check {
        try #require(checks.first { $0.name == name })
    }

    func trial(_ method: String) throws -> Trial {
        try #require(trials.first { $0.method == method })
    }

    /// The only target.
    var target: Target {
        get throws {
            #expect(targets.count == 1)
            return try #require(targets.first)
        }
    }
}

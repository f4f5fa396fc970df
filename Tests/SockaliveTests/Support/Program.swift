import Foundation
import Testing

/// A program that runs to its end, and its output.
struct Program {
    let status: Int32
    let output: String
    let errors: String

    var errorLines: [Substring] {
        errors.split(separator: "\n")
    }

    /// The folder of the test bundle, which also has the built programs.
    static let folder = Bundle.main.bundleURL

    static func path(_ name: String) -> String {
        folder.appendingPathComponent(name).path
    }

    /// The `sockalive` under test: the debug build, unless a test chooses another.
    @TaskLocal static var executable = path("sockalive")

    /// The shipped program: static and optimized.
    static let shipped = ProcessInfo.processInfo.environment["SOCKALIVE_STATIC"]

    /// Runs `sockalive`. Only its arguments decide the result.
    ///
    /// - Parameter launcher: a command that executes the command after it (`setpriv …`, `deny-syscalls … --`).
    static func sockalive(
        _ arguments: [String], launcher: [String] = [], environment: [String: String]? = nil,
        output: Child.Output = .pipe, deadline: Duration = .seconds(30)
    ) throws -> Program {
        let program = try run(
            launcher + [executable] + arguments, environment: environment, output: output, deadline: deadline)
        if arguments.contains("--json") { keep(program.output) }
        return program
    }

    /// For `Tests/Packaging/schema.py`, which validates every document.
    private static func keep(_ document: String) {
        guard document.hasPrefix("{"),
            let folder = ProcessInfo.processInfo.environment["SOCKALIVE_TESTS_KEEP_JSON"]
        else { return }
        try? document.write(toFile: "\(folder)/\(UUID().uuidString)", atomically: false, encoding: .utf8)
    }

    /// Copies an executable file. A child process writes the copy: if this process wrote it, a child that starts at the
    /// same time might hold it open, and the file could not be executed (execve(2), ETXTBSY).
    static func copy(_ source: String, to copy: String) throws {
        #expect(try run(["cp", source, copy]).status == 0)
    }

    /// Runs a command and collects its output. After the deadline the command is killed, and the test fails.
    static func run(
        _ arguments: [String], environment: [String: String]? = nil, output: Child.Output = .pipe,
        deadline: Duration = .seconds(30)
    ) throws -> Program {
        let child = try Child(arguments, environment: environment, output: output)
        child.input.close()
        var texts: [ObjectIdentifier: [UInt8]] = [:]
        var open = [child.output, child.errors].filter { $0.descriptor >= 0 }
        let deadline = Deadline(deadline)
        while !open.isEmpty {
            guard deadline.wait(for: open) else {
                Issue.record("\(arguments.joined(separator: " ")) did not end in time")
                child.kill()
                break
            }
            open.removeAll { pipe in
                guard Deadline(.zero).wait(for: [pipe]) else { return false }
                let bytes = pipe.read() ?? []
                texts[ObjectIdentifier(pipe), default: []] += bytes
                return bytes.isEmpty
            }
        }
        func text(_ pipe: PipeEnd) -> String { String(decoding: texts[ObjectIdentifier(pipe)] ?? [], as: UTF8.self) }
        return Program(status: child.wait(), output: text(child.output), errors: text(child.errors))
    }
}

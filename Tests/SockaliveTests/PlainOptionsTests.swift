import ArgumentParser
import Testing

@testable import sockalive

@Suite struct PlainOptionsTests {
    /// One right value for each option; nil for a flag.
    private static let ruleValues: [String: String?] = [
        "--process": "a b", "--any-process": nil, "--pid": "7", "--exe": "/a", "--user": "root", "--port": "1",
        "--any-port": nil, "--remote": "10.0.0.0/8", "--listeners": nil, "--half-closed": nil,
        "--source": "diag", "--unit": "a", "--container": "a", "--pod": "a/b", "--cgroup": "/a*", "--command": "a b",
        "--firewall-timeout": "30m", "--idle": "5m", "--interval": "7", "--count": "9", "--user-timeout": "1h",
        "--off": nil, "--method": "ptrace",
    ]
    private static let outputValues: [String: String?] = [
        "--quiet": nil, "--verbose": nil, "--json": nil, "--config": "/a", "--timeout": "7s",
    ]
    private static let runValues: [String: String?] = [
        "--require": nil, "--lock": "/a", "--no-lock": nil, "--syslog": nil, "--metrics": "/a", "--wait": "3s",
    ]

    private static let types: [(any PlainOptions.Type, [String: String?])] = {
        let list = ruleValues.merging(outputValues) { $1 }
        let probe = list.merging(runValues) { $1 }
        return [
            (RuleOptions.self, ruleValues),
            (ListCommand.self, list.merging(["--check": nil]) { $1 }),
            (InjectCommand.self, probe.merging(["--dry-run": nil, "--probe": nil]) { $1 }),
            (ProbeCommand.self, probe),
        ]
    }()

    @Test func `every option that is declared is set plainly, so that no run and no file of rules is slow`() {
        for (type, values) in Self.types {
            let help = type.helpMessage(columns: 200)
            let declared = Set(help.matches(of: /(?m)^ +(?:-[a-z], )?(--[a-z-]+)/).map { String($0.output.1) })
            #expect(declared.contains("--process") && declared.contains("--off"))
            #expect(Set(values.keys) == declared.subtracting(["--help", "--version"]), "\(type)")
            for (name, value) in values {
                var words = [name] + (value.map { [$0] } ?? [])
                if name == "--wait" && type == InjectCommand.self { words.append("--probe") }
                #expect(Self.plain(type, words) != nil, "\(type) \(words)")
            }
        }
    }

    @Test func `a line means the same, whoever parses it`() {
        var random = SystemRandomNumberGenerator()
        let odd = [
            "", "x", "-1", "--", "--port=2", "--port=", "--off=no", "--po", "-h", "--no-off", "0", "99999", "/b",
        ]
        for (type, values) in Self.types {
            let names = values.keys.sorted()
            var plain = 0
            // ArgumentParser takes some 20 ms for a line in a debug build.
            for _ in 0..<40 {
                var words: [String] = []
                for _ in 0..<Int.random(in: 0...4, using: &random) {
                    let name = names.randomElement(using: &random)!
                    words.append(name)
                    if let value = values[name]! { words.append(value) }
                    if Int.random(in: 0..<5, using: &random) == 0 { words.append(odd.randomElement(using: &random)!) }
                }
                if Self.expectSame(type, words) { plain += 1 }
            }
            #expect(plain > 4, "\(type)")
        }
    }

    /// Also the contradictions of each group, and of each command.
    @Test(arguments: [
        ["--exe", "/a", "--exe", "/b"], ["--process", "a", "--process", "b", "--process", "a"], ["--off", "--off"],
        ["--port", "1", "--port", "1"], ["--process=-x"], ["--process", "-x"], ["--off", "--idle", "1"],
        ["--any-port", "--port", "1"], ["--any-process", "--pid", "1"], ["--idle", "0"], ["--method", "gdb"],
        ["--remote", "x"], ["--quiet", "--verbose"], ["--lock", "/a", "--no-lock"], ["--dry-run", "--probe"],
        ["--wait", "1s"], ["--wait", "1s", "--probe"], ["--timeout", "1s", "--timeout", "2s"], ["--timeout", "0"],
        ["--quiet", "x"], [],
    ])
    func `so do repeated options and contradictions`(words: [String]) {
        for (type, _) in Self.types { Self.expectSame(type, words) }
    }

    /// - Returns: whether the line is parsed plainly.
    @discardableResult
    private static func expectSame(_ type: any PlainOptions.Type, _ words: [String]) -> Bool {
        guard let plain = plain(type, words) else { return false }
        let parsed = try? type.parse(words)
        #expect(parsed.map(description) == plain, "\(type) \(words)")
        return true
    }

    private static func plain(_ type: any PlainOptions.Type, _ words: [String]) -> String? {
        type.plainly(words[...]).map(description)
    }

    /// Of all values. A group keeps its title where it is made plainly.
    private static func description(_ options: any ParsableArguments) -> String {
        var text = ""
        dump(options, to: &text)
        return text.split(separator: "\n").filter { !$0.contains("_visibility") && !$0.contains("title") }
            .joined(separator: "\n")
    }
}

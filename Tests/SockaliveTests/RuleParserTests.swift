import ArgumentParser
import SockaliveCore
import Testing

@testable import sockalive

@Suite struct RuleParserTests {
    private let parser: RuleParser

    init() throws {
        parser = try RuleParser()
    }

    private enum Meaning: Equatable {
        case rule(Selection, KeepaliveRequest, String, SocketSource?, MethodChoice?)
        case error(String)
    }

    private func meaning(_ parse: () throws -> RuleOptions) -> Meaning {
        do {
            let options = try parse()
            let (selection, keepalive) = (options.selection, options.keepalive)
            return .rule(
                selection.selection, keepalive.request, selection.description, selection.source, keepalive.method)
        } catch {
            return .error(RuleOptions.message(for: error))
        }
    }

    /// One right value for each option; nil for a flag.
    private static let values: [String: String?] = [
        "--process": "a b", "--any-process": nil, "--pid": "7", "--exe": "/a", "--user": "root", "--port": "1",
        "--any-port": nil, "--remote": "10.0.0.0/8", "--listeners": nil, "--half-closed": nil,
        "--source": "diag", "--unit": "a", "--container": "a", "--pod": "a/b", "--cgroup": "/a*", "--command": "a b",
        "--firewall-timeout": "30m", "--idle": "5m", "--interval": "7", "--count": "9", "--user-timeout": "1h",
        "--off": nil, "--method": "ptrace",
    ]

    @Test func `every option of a rule has its setter, so that no file of rules is slow to read`() throws {
        let help = RuleOptions.helpMessage(columns: 200)
        let declared = Set(help.matches(of: /(?m)^ +(?:-[a-z], )?(--[a-z-]+)/).map { String($0.output.1) })
        #expect(declared.contains("--process") && declared.contains("--off"))
        let names = Set(SelectionOptions.setters.keys).union(KeepaliveOptions.setters.keys)
        #expect(names == declared.subtracting(["--help"]))
        #expect(names == Set(Self.values.keys))
        for (name, value) in Self.values {
            #expect(parser.plainOptions([name] + (value.map { [$0] } ?? [])) != nil, "\(name)")
        }
    }

    @Test func `a rule means the same, and an error says the same, whoever parses it`() {
        var random = SystemRandomNumberGenerator()
        let names = Self.values.keys.sorted()
        let odd = [
            "", "x", "-1", "--", "--port=2", "--port=", "--off=no", "--po", "-h", "--no-off", "0", "99999", "/b",
        ]
        var plain = 0
        // ArgumentParser takes some 20 ms for a rule in a debug build.
        for _ in 0..<100 {
            var words: [String] = []
            for _ in 0..<Int.random(in: 0...4, using: &random) {
                let name = names.randomElement(using: &random)!
                words.append(name)
                if let value = Self.values[name]! { words.append(value) }
                if Int.random(in: 0..<5, using: &random) == 0 { words.append(odd.randomElement(using: &random)!) }
            }
            if parser.plainOptions(words) != nil { plain += 1 }
            #expect(meaning { try parser.options(words) } == meaning { try RuleOptions.parse(words) }, "\(words)")
        }
        #expect(plain > 10)
    }

    @Test(arguments: [
        ["--exe", "/a", "--exe", "/b"], ["--process", "a", "--process", "b", "--process", "a"], ["--off", "--off"],
        ["--port", "1", "--port", "1"], ["--process=-x"], ["--process", "-x"], ["--off", "--idle", "1"],
        ["--any-port", "--port", "1"], ["--idle", "0"], ["--method", "gdb"], ["--remote", "x"], [],
    ])
    func `so do repeated options and contradictions`(words: [String]) {
        #expect(meaning { try parser.options(words) } == meaning { try RuleOptions.parse(words) })
    }
}

import ArgumentParser
import SockaliveCore
import SystemPackage

/// One rule: which sockets, and which keepalive. A line of the configuration file has the same words.
struct RuleOptions: ParsableArguments {
    @OptionGroup var selection: SelectionOptions
    @OptionGroup var keepalive: KeepaliveOptions
}

extension RuleOptions: PlainOptions {
    static let byDefault: Self = {
        var options = Self()
        (options.selection, options.keepalive) = (.byDefault, .byDefault)
        return options
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        try selection.set(name, value) || keepalive.set(name, value)
    }

    mutating func validateGroups() throws {
        try selection.validate()
        try keepalive.validate()
    }
}

/// The rules of a file instead of the command line's own.
///
/// It stands beside the groups of a rule, not around them: a debug build's checks of the declarations
/// multiply with each level of groups.
struct ConfigOptions: ParsableArguments {
    @Option(
        help: .init("Take the rules from this file: on each line the options above.", valueName: "file"),
        transform: ArgumentTransform.filePath)
    var config: String?

    /// The configuration of the run: the rule of its command line, or those of the file.
    ///
    /// - Throws: `ValidationError` that names file, line and word.
    func runConfiguration(_ selection: SelectionOptions, _ keepalive: KeepaliveOptions) throws -> RunConfiguration {
        guard let config else { return RunConfiguration([.init(selection, keepalive)]) }
        guard !selection.isGiven && !keepalive.isGiven else {
            throw ValidationError("--config takes which sockets and which keepalive from its file alone")
        }
        return try Self.runConfiguration(of: config)
    }

    /// The file's rules as they are by now; nil without a file.
    func reread() throws -> RunConfiguration? { try config.map(Self.runConfiguration) }

    /// What tells the file from what it was before; nil without a file, and for a pipe, which can be read once.
    var fileVersion: FileVersion? { config.flatMap(FileVersion.init) }

    private static func runConfiguration(of config: String) throws -> RunConfiguration {
        do {
            let lines = try RuleFile.lines(try RuleFile.read(config))
            guard !lines.isEmpty else {
                throw ValidationError("\(config): there is no rule in it; write one, such as --process beremote")
            }
            var (rules, common): ([RunConfiguration.RuleSource], CommonOptions) = ([], CommonOptions())
            for line in lines {
                let rule = try rule(line, of: config)
                if let word = common.contradiction(to: rule) {
                    throw ValidationError(location(config, line.number) + "\(word) differs from a line before")
                }
                rules.append(.init(rule.selection, rule.keepalive, text: line.text))
            }
            return RunConfiguration(rules)
        } catch let error as RuleFile.Malformed {
            throw ValidationError(location(config, error.line) + error.reason)
        } catch let error as Errno {
            throw ValidationError("\(config) cannot be read: \(remedy(for: error))")
        }
    }

    private static func remedy(for error: Errno) -> String {
        switch error {
        case .invalidArgument: "it is neither a file nor a pipe"
        case .fileTooLarge: "it is too long for a file of rules"
        case .timedOut: "whoever writes into the pipe writes nothing"
        default: "\(error); look at its name and its permissions"
        }
    }

    /// One run looks for all sockets in one way, and reaches them in one way.
    private struct CommonOptions {
        private var method: MethodChoice?
        private var source: SocketSource?

        /// The option that has another value than in a rule before; nil where there is none.
        mutating func contradiction(to rule: RuleOptions) -> String? {
            let (method, source) = (rule.keepalive.method, rule.selection.source)
            if let method, let before = self.method, method != before { return "--method" }
            if let source, let before = self.source, source != before { return "--source" }
            self.method = self.method ?? method
            self.source = self.source ?? source
            return nil
        }
    }

    private static func location(_ file: String, _ line: Int) -> String { "\(file), line \(line): " }

    private static func rule(_ line: RuleFile.Line, of file: String) throws -> RuleOptions {
        do {
            return try RuleOptions.plainly(line.words[...]) ?? RuleOptions.parse(line.words)
        } catch {
            let isHelp = RuleOptions.exitCode(for: error) == .success
            let reason = (isHelp ? asksForHelp(line.words) : nil) ?? RuleOptions.message(for: error)
            throw ValidationError(location(file, line.number) + reason)
        }
    }

    /// Help is an answer on the command line; here it was a wrong word.
    private static func asksForHelp(_ words: [String]) -> String? {
        let asking = words.first { word in
            do {
                _ = try RuleOptions.parse([word])
                return false
            } catch {
                return RuleOptions.exitCode(for: error) == .success
            }
        }
        return asking.map { "Unknown option '\($0)'" }
    }
}

extension ConfigOptions: PlainOptions {
    static let byDefault: Self = {
        var options = Self()
        options.config = nil
        return options
    }()

    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool {
        guard name == "--config" else { return false }
        config = try ArgumentTransform.filePath(value())
        return true
    }
}

/// The configuration of one run: rules, method, source.
struct RunConfiguration {
    let rules: RuleSet
    let method: MethodChoice
    let source: SocketSource
    /// What was looked for, in words.
    let description: String

    /// The options of a rule, and how it was written.
    fileprivate struct RuleSource {
        let selection: SelectionOptions
        let keepalive: KeepaliveOptions
        let text: String

        /// - Parameter text: the line of the file; the rule of a command line is described.
        init(_ selection: SelectionOptions, _ keepalive: KeepaliveOptions, text: String? = nil) {
            self.selection = selection
            self.keepalive = keepalive
            self.text = text ?? selection.description
        }
    }

    fileprivate init(_ options: [RuleSource]) {
        rules = RuleSet(
            options.map { Rule(selection: $0.selection.selection, request: $0.keepalive.request, text: $0.text) })
        method = options.compactMap(\.keepalive.method).first ?? .auto
        source = options.compactMap(\.selection.source).first ?? .auto
        let more = options.count > Self.maxDescribed ? "; and \(options.count - Self.maxDescribed) more rules" : ""
        description = options.prefix(Self.maxDescribed).map(\.selection.description).joined(separator: "; ") + more
    }

    private static let maxDescribed = 20
}

extension RunConfiguration {
    /// Explicit values are obeyed, also where they do not help or do harm.
    func warnIfTooSlow(_ reporter: Reporter) {
        // Many rules may have the same values.
        var messages: Set<String> = []
        func warn(_ message: String) {
            if messages.insert(message).inserted { reporter.message(message) }
        }
        rules.rules.flatMap(\.request.warnings).forEach(warn)
    }
}

extension KeepaliveRequest {
    /// Why these values do not help, or do harm.
    var warnings: [String] {
        let settings = KeepaliveSettings(
            enabled: wanted.enabled, idle: wanted.idle, interval: wanted.interval, count: wanted.count,
            userTimeout: wanted.userTimeout ?? 0)
        let isLate = wanted.enabled && !settings.isTimely(against: firewallTimeout)
        let late =
            "idle \(wanted.idle)s and two intervals of \(wanted.interval)s are not below the firewall's timeout "
            + "of \(firewallTimeout): the connection may be dropped; choose a shorter --idle"
        let risk = UserTimeoutRisk(settings, against: firewallTimeout)
        return (isLate ? [late] : []) + (risk.map { [$0.line] } ?? [])
    }
}

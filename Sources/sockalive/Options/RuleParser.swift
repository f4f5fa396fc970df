import ArgumentParser
import SockaliveCore

/// Parses the words of a rule: a line of the configuration file.
///
/// ArgumentParser looks at every declaration for every line, which takes a quarter of a millisecond. So a line that has
/// only plain words is parsed here: the full name of an option, and its value as the next word. ArgumentParser judges
/// every other line, so what is valid, what it means and what an error says is the same for both.
struct RuleParser {
    private let defaults: RuleOptions

    init() throws {
        defaults = try RuleOptions.parse([])
    }

    func options(_ words: [String]) throws -> RuleOptions {
        try plainOptions(words) ?? RuleOptions.parse(words)
    }

    /// nil where ArgumentParser has to judge.
    func plainOptions(_ words: [String]) -> RuleOptions? {
        var (selection, keepalive) = (defaults.selection, defaults.keepalive)
        var words = words[...]
        while let word = words.popFirst() {
            let isSet =
                (try? SelectionOptions.setters[word]?.set(&selection, from: &words))
                ?? (try? KeepaliveOptions.setters[word]?.set(&keepalive, from: &words)) ?? false
            guard isSet else { return nil }
        }
        var options = defaults
        (options.selection, options.keepalive) = (selection, keepalive)
        do {
            try selection.validate()
            try keepalive.validate()
            try options.validate()
            return options
        } catch {
            return nil
        }
    }
}

/// Sets one option of a group, as its declaration does.
enum OptionSetter<Options>: Sendable {
    case flag(@Sendable (inout Options) -> Void)
    case value(@Sendable (inout Options, String) throws -> Void)

    /// - Returns: false where the next word is no plain value.
    fileprivate func set(_ options: inout Options, from words: inout ArraySlice<String>) throws -> Bool {
        switch self {
        case .flag(let set): set(&options)
        case .value(let set):
            guard let word = words.popFirst(), !word.hasPrefix("-") else { return false }
            try set(&options, word)
        }
        return true
    }
}

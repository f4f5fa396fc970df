import ArgumentParser

/// Options that a plain line sets: full names of options, and each value as the next word.
///
/// ArgumentParser looks at every declaration by reflection, and asks Swift's runtime for the conformances of many types,
/// for every line. That is half of the time of a run on a busy host (Docs/Performance.md), and a quarter of a millisecond
/// for each rule of a file. So a plain line is parsed here. ArgumentParser judges every other one: what is valid, what it
/// means and what an error says is the same for both.
protocol PlainOptions: ParsableArguments {
    /// As ArgumentParser makes them of an empty line. What it makes by `init()` is only declared, and cannot be read.
    static var byDefault: Self { get }

    /// Sets one option, as its declaration does.
    ///
    /// - Parameter value: takes the next word.
    /// - Returns: false for a name that is not declared here.
    mutating func set(_ name: String, _ value: () throws -> String) throws -> Bool

    /// What ArgumentParser does with each group by itself.
    mutating func validateGroups() throws
}

extension PlainOptions {
    mutating func validateGroups() throws {}

    /// nil where ArgumentParser has to judge.
    static func plainly(_ words: ArraySlice<String>) -> Self? {
        var (options, words) = (byDefault, words)
        func value() throws -> String {
            guard let word = words.popFirst(), !word.hasPrefix("-") else { throw NoPlainValue() }
            return word
        }
        do {
            while let name = words.popFirst() {
                guard try options.set(name, value) else { return nil }
            }
            try options.validateGroups()
            try options.validate()
            return options
        } catch {
            return nil
        }
    }
}

private struct NoPlainValue: Error {}

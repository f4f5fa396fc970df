// The names that the program and its libraries use of FoundationEssentials, for a build without that module
// (aarch64.sh). Nothing is encoded: `--json` of doctor and of demo end with an error.

public typealias Data = [UInt8]

public protocol LocalizedError: Error {
    var errorDescription: String? { get }
}

extension LocalizedError {
    public var errorDescription: String? { nil }
}

extension String {
    public enum Encoding: Sendable {
        case utf8
    }

    public init?(data: Data, encoding: Encoding) {
        self.init(decoding: data, as: UTF8.self)
    }
}

public struct MissingEncoder: Error, Sendable {}

public final class JSONEncoder {
    public struct OutputFormatting: OptionSet, Sendable {
        public let rawValue: UInt

        public init(rawValue: UInt) { self.rawValue = rawValue }

        public static let prettyPrinted = Self(rawValue: 1)
        public static let sortedKeys = Self(rawValue: 2)
        public static let withoutEscapingSlashes = Self(rawValue: 4)
    }

    public enum KeyEncodingStrategy: Sendable {
        case useDefaultKeys, convertToSnakeCase
    }

    public var outputFormatting: OutputFormatting = []
    public var keyEncodingStrategy = KeyEncodingStrategy.useDefaultKeys

    public init() {}

    public func encode(_ value: some Encodable) throws -> Data { throw MissingEncoder() }
}

import Testing

@testable import SockaliveCore

/// JSON texts that may be anybody's.
struct JSONValueTests {
    private func value(_ text: String) -> JSONValue? { JSONValue(text.utf8) }

    @Test func readsWhatAnEngineWrites() throws {
        let text = #"""
            [{"id":"3a89","names":["web"],"metadata":"{\"name\":\"web\"}","flags":{"Volatile":true},"n":-1.5e3},
             {"id":"09b2","names":null}]
            """#
        let containers = try #require(value(text)).elements
        #expect(containers.map { $0["id"]?.bytes } == [Array("3a89".utf8), Array("09b2".utf8)])
        #expect(containers[0]["names"]?.elements.map(\.bytes) == [Array("web".utf8)])
        #expect(containers[0]["metadata"]?.bytes == Array(#"{"name":"web"}"#.utf8))
        #expect(containers[1]["names"] == .other)
        #expect(containers[1]["flags"] == nil)
    }

    @Test(arguments: [
        (#""a\n\t\/\\\"""#, "a\n\t/\\\""), (#""\u00e4""#, "ä"), (#""\ud83d\ude00""#, "😀"), (#""\ud83d""#, "\u{fffd}"),
        (#""\ud83d\u0041""#, "\u{fffd}A"), (#""\udc00x""#, "\u{fffd}x"),
    ])
    func undoesEscapes(_ text: String, _ wanted: String) {
        #expect(value(text)?.bytes == Array(wanted.utf8))
    }

    @Test(arguments: [
        "", " ", "[", "[1", "[1,]", "{", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, "{1:2}", #"""#, #""\x""#, #""\u12""#,
        "\"\n\"",
        "1 2", "[] []", "&",
    ])
    func refusesWhatIsNone(_ text: String) {
        #expect(value(text) == nil)
    }

    @Test func isNeverDeep() {
        #expect(value(String(repeating: "[", count: 30) + String(repeating: "]", count: 30)) != nil)
        #expect(value(String(repeating: "[", count: 1_000_000)) == nil)
    }

    @Test func hasSoManyValuesAndNoMore() {
        func list(_ count: Int) -> String { "[" + String(repeating: "1,", count: count - 2) + "1]" }
        #expect(value(list(JSONValue.maxValues)) != nil)
        #expect(value(list(JSONValue.maxValues + 1)) == nil)
    }

    @Test func takesTheLastOfTwoMembers() {
        #expect(value(#"{"a":"x","a":"y"}"#)?["a"]?.bytes == Array("y".utf8))
    }
}

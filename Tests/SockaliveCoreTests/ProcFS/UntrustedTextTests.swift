import Testing

@testable import SockaliveCore

@Suite struct UntrustedTextTests {
    @Test(arguments: [
        ("beremote", "beremote"), ("Bücher", "Bücher"), ("\u{1b}[31mred", "\\x1b[31mred"),
        ("two\nlines\t", "two\\nlines\\t"), ("back\\slash", "back\\\\slash"), ("\u{202e}olleh", "\\u{202e}olleh"),
        ("zero\u{200b}width", "zero\\u{200b}width"), ("\u{7f}", "\\x7f"), ("\u{85}", "\\u{85}"),
        ("\u{2028}", "\\u{2028}"), ("\u{feff}", "\\u{feff}"),
    ])
    func `no text moves the cursor or changes the direction`(raw: String, shown: String) {
        #expect(UntrustedText(raw).escaped == shown)
    }

    @Test func `bytes that are not UTF-8 are shown as bytes`() {
        #expect(UntrustedText([0x61, 0xff, 0x62]).escaped == "a\\xffb")
        #expect(UntrustedText([0xc3]).escaped == "\\xc3")
        #expect(UntrustedText([0xe2, 0x80]).escaped == "\\xe2\\x80")
    }

    @Test func `every byte sequence of length two is escaped to printable text`() {
        for first in UInt8.min...UInt8.max {
            for second in UInt8.min...UInt8.max {
                let shown = UntrustedText([first, second]).escaped
                #expect(shown.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) })
            }
        }
    }
}

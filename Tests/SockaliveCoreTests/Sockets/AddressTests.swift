import Testing

@testable import SockaliveCore

@Suite struct AddressTests {
    @Test(arguments: [
        ("192.0.2.0/24", "192.0.2.77", true), ("192.0.2.0/24", "192.0.3.1", false),
        ("192.0.2.1", "192.0.2.1", true), ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1/32", "::ffff:192.0.2.1", true), ("::ffff:192.0.2.0/120", "192.0.2.9", true),
        ("::ffff:192.0.2.0/120", "192.0.3.9", false), ("0.0.0.0/0", "203.0.113.9", true),
        ("0.0.0.0/0", "2001:db8::1", false), ("::/0", "192.0.2.1", false), ("2001:db8::/33", "2001:db8:7fff::1", true),
        ("2001:db8::/33", "2001:db8:8000::1", false), ("192.0.2.128/25", "192.0.2.129", true),
        ("192.0.2.128/25", "192.0.2.127", false), ("10.0.0.0/7", "11.255.0.1", true),
    ])
    func `a range contains the addresses of its prefix`(range: String, address: String, isInside: Bool) throws {
        let range = try #require(AddressRange(range))
        #expect(range.contains(try #require(IPAddress(address))) == isInside)
    }

    @Test(arguments: [
        "", "/", "192.0.2.1/", "192.0.2.1/33", "192.0.2", "2001:db8::/129", "x", "192.0.2.1/-1", "::ffff:192.0.2.1/95",
        "192.0.2.1/24/3", " 192.0.2.1",
    ])
    func `other texts give no range`(text: String) {
        #expect(AddressRange(text) == nil)
    }

    @Test func `endpoints are shown with their port, mapped addresses as IPv4`() throws {
        let ends = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"].map { IPAddress($0)! }
        #expect(
            ends.map { "\(Endpoint(address: $0, port: 5633))" } == [
                "192.0.2.1:5633", "[2001:db8::1]:5633", "192.0.2.1:5633",
            ])
    }
}

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

    @Test(arguments: [
        ("fe80::1%eth0", "fe80::1/128%eth0"), ("fe80::/10%eth0", "fe80::/10%eth0"), ("fe80::1%7/64", "fe80::1/64%7"),
        ("febf::%a.b", "febf::/128%a.b"), ("192.0.2.1", "192.0.2.1/32"), ("fe80::%\u{1b}/64", "fe80::/64%\\x1b"),
    ])
    func `a range may be one link's`(text: String, shown: String) {
        #expect(AddressRange(text)?.description == shown)
    }

    @Test(arguments: [
        "fe80::1%", "%eth0", "fe80::1%/64", "fe80::1%eth0/129", "fe80::1/64%eth0/64", "fe80::1%eth0%eth1%",
        "fe80::1%a b", "fe80::1%a:b", "fe80::1%..", "fe80::1%0123456789abcdef", "fe80::/9%eth0", "2001:db8::1%eth0",
        "::1%lo", "192.0.2.1%eth0", "fec0::1%eth0",
    ])
    func `no other address has a link`(text: String) {
        #expect(AddressRange(text) == nil)
    }

    @Test func `an interface that nobody told is neither the one nor another`() throws {
        let address = try #require(IPAddress("fe80::1"))
        func isInside(_ range: String, _ interface: NetworkInterface?) throws -> Bool? {
            try #require(AddressRange(range)).contains(address, on: interface)
        }
        let eth0 = NetworkInterface(index: 3, name: UntrustedText("eth0"))
        let nameless = NetworkInterface(index: 3)
        #expect(try isInside("fe80::/64%eth0", eth0) == true)
        #expect(try isInside("fe80::/64%3", eth0) == true)
        #expect(try isInside("fe80::/64%3", nameless) == true)
        #expect(try isInside("fe80::/64%eth1", eth0) == false)
        #expect(try isInside("fe80::/64%4", eth0) == false)
        #expect(try isInside("fe80::/64%eth0", nameless) == nil)
        #expect(try isInside("fe80::/64%eth0", nil) == nil)
        #expect(try isInside("fe80::/64", nil) == true)
        #expect(try isInside("fe80::2%eth0", nil) == false)
    }

    @Test(arguments: [nil, "", "a", "left0", "eightlet", "ninelette", "fifteen_letters", "sixteen_letters_"])
    func `an interface keeps the name that the kernel may give`(name: String?) {
        let kept = name.map { String($0.prefix(15)) }.flatMap { $0.isEmpty ? nil : $0 }
        let interface = NetworkInterface(index: 3, name: name.map { UntrustedText($0) })
        #expect(interface.name?.decoded == kept)
        #expect(interface.label.decoded == kept ?? "3")
        #expect(interface == NetworkInterface(index: 3, name: kept.map { UntrustedText($0) }))
    }

    @Test func `only a link-local end is shown with its interface`() throws {
        func ends(_ local: String, _ remote: String, _ interface: NetworkInterface?) throws -> String {
            let row = SocketRow(
                family: .ipv6, local: Endpoint(address: try #require(IPAddress(local)), port: 1),
                remote: Endpoint(address: try #require(IPAddress(remote)), port: 2), state: .established,
                timer: .none, uid: 0, inode: 7, interface: interface)
            return "\(row.localDescription) \(row.remoteDescription)"
        }
        let eth0 = NetworkInterface(index: 3, name: UntrustedText("eth0"))
        #expect(try ends("fe80::1", "febf::2", eth0) == "[fe80::1%eth0]:1 [febf::2%eth0]:2")
        #expect(try ends("2001:db8::1", "fe80::2", eth0) == "[2001:db8::1]:1 [fe80::2%eth0]:2")
        #expect(try ends("fe80::1", "fe80::2", NetworkInterface(index: 3)) == "[fe80::1%3]:1 [fe80::2%3]:2")
        #expect(try ends("fe80::1", "fe80::2", nil) == "[fe80::1]:1 [fe80::2]:2")
        #expect(try ends("::ffff:127.0.0.1", "fec0::1", eth0) == "127.0.0.1:1 [fec0::1]:2")
        let hostile = NetworkInterface(index: 3, name: UntrustedText("\u{1b}[2J"))
        #expect(try ends("fe80::1", "::", hostile) == "[fe80::1%\\x1b[2J]:1 [::]:2")
    }

    @Test func `endpoints are shown with their port, mapped addresses as IPv4`() throws {
        let ends = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"].map { IPAddress($0)! }
        #expect(
            ends.map { "\(Endpoint(address: $0, port: 5633))" } == [
                "192.0.2.1:5633", "[2001:db8::1]:5633", "192.0.2.1:5633",
            ])
    }
}

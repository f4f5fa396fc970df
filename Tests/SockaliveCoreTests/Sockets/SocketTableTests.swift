import Testing

@testable import SockaliveCore

/// Rows captured from Linux 6.18.
private let established =
    "   2: 0100007F:BD14 0100007F:1601 01 00000000:00000000 00:00000000 00000000  1000        0 102513"
    + " 2 000000007bac7fcb 20 0 0 10 -1                    \n"
private let accepted =
    "   3: 0100007F:1601 0100007F:BD14 01 00000000:00000000 02:000AFC80 00000000     0        0 102514"
    + " 1 00000000cf079a7f 20 0 0 10 -1                    \n"
private let listening =
    "   1: 0100007F:1601 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102512"
    + " 1 0000000029519d4f 100 0 0 10 0                    \n"
private let stranger =
    "   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24"
    + " 1 0000000053f1a211 100 0 0 10 0                    \n"

@Suite struct SocketTableTests {
    @Test func `a port matches at either end`() throws {
        let rows = socketRows(tableHeader + stranger + listening + established + accepted)
        #expect(rows.map(\.inode) == [102513, 102514])
        let first = try #require(rows.first)
        #expect("\(first.local)" == "127.0.0.1:48404")
        #expect("\(first.remote)" == "127.0.0.1:5633")
        #expect(first.uid == 1000)
        #expect(first.timer == SocketRow.Timer.none)
    }

    @Test func `an armed keepalive timer gives the time of the next probe`() {
        #expect(socketRows(accepted).first?.timer == .keepalive(seconds: 7200))
    }

    @Test(arguments: [
        ("01", SocketRow.Timer.retransmission(seconds: 0.16)), ("03", .other), ("04", .windowProbe(seconds: 0.16)),
    ])
    func `other timers hide an armed keepalive`(kind: String, timer: SocketRow.Timer) {
        let row = accepted.replacing("02:000AFC80", with: "\(kind):00000010")
        #expect(socketRows(row).first?.timer == timer)
    }

    @Test func `listeners are found only on request`() {
        #expect(socketRows(listening).isEmpty)
        #expect(socketRows(listening, listeners: true).map(\.state) == [.listen])
    }

    @Test(arguments: [("05", SocketRow.State.finWait2), ("08", .closeWait)])
    func `half-closed connections are found only where they are asked for`(number: String, state: SocketRow.State) {
        let row = established.replacing(" 01 0", with: " \(number) 0")
        #expect(socketRows(row).isEmpty)
        #expect(socketRows(row, listeners: true).isEmpty)
        #expect(socketRows(row, halfClosed: true).map(\.state) == [state])
        #expect(socketRows(row, ports: [1], halfClosed: true).isEmpty)
        #expect(socketRows(row + listening, halfClosed: true).count == 1)
    }

    @Test func `without ports every port matches`() {
        #expect(socketRows(stranger + established, ports: nil, listeners: true).map(\.inode) == [24, 102513])
    }

    @Test(arguments: ["02", "04", "06", "09", "0B", "0C"])
    func `opening and closing connections are no candidates`(state: String) {
        #expect(socketRows(established.replacing(" 01 0", with: " \(state) 0"), halfClosed: true).isEmpty)
    }

    @Test func `IPv6 and v4-mapped addresses are parsed`() {
        let rows = socketRows(
            """
               0: 00000000000000000000000001000000:1601 00000000000000000000000001000000:A3F4 01 00000000:00000000 \
            00:00000000 00000000     0        0 7001 1 0000000000000000 20 4 30 10 -1
               1: 0000000000000000FFFF00000100007F:1601 0000000000000000FFFF00000200007F:A3F6 01 00000000:00000000 \
            02:00000064 00000000     0        0 7002 1 0000000000000000 20 4 30 10 -1
               2: B80D0120000000000000000001000000:1601 B80D0120000000000000000002000000:A3F8 01 00000000:00000000 \
            00:00000000 00000000     0        0 7003 1 0000000000000000 20 4 30 10 -1\n
            """, family: .ipv6)
        #expect(rows.map { "\($0.local)" } == ["[::1]:5633", "127.0.0.1:5633", "[2001:db8::1]:5633"])
        #expect(rows.map { "\($0.remote)" } == ["[::1]:41972", "127.0.0.2:41974", "[2001:db8::2]:41976"])
        #expect(rows.allSatisfy { $0.family == .ipv6 })
    }

    /// A row that is cut off must not give a socket: 10251 is the inode of another one.
    @Test func `a row that is cut off at any byte is dropped`() {
        let bytes = Array(established)
        for length in 0..<bytes.count {
            #expect(socketRows(String(bytes[..<length])).isEmpty, "cut at \(length)")
        }
        #expect(socketRows(established).count == 1)
    }

    /// The same with a line end after the cut, as if a reader had joined two reads.
    @Test func `a shortened row with a line end gives the right inode or none`() {
        let bytes = Array(established)
        for length in 0..<bytes.count {
            let rows = socketRows(String(bytes[..<length]) + "\n" + accepted)
            #expect(rows.allSatisfy { [102513, 102514].contains($0.inode) }, "cut at \(length)")
            #expect(rows.contains { $0.inode == 102514 })
        }
    }

    @Test(arguments: [
        "", "\n\n\n", "   :", "0: : : 01\n", "0: ZZZZZZZZ:1601 0100007F:BD14 01 0:0 00:0 0 0 0 1 1 0\n",
        "0: 0100007F:11601 0100007F:BD14 01 0:0 00:0 0 0 0 1 1 0\n",
        "0: 0100007F:1601 0100007F:BD14 01 0:0 00:0 0 0 0 99999999999999999999999 1 0\n",
        "0: 0100007F:1601 0100007F:BD14 01 0:0 00:0 0 -1 0 5 1 0\n",
    ])
    func `malformed text gives no row`(text: String) {
        #expect(socketRows(text).isEmpty)
    }

    @Test func `thousands of rows are all parsed`() {
        let text = (0..<20_000).map { number in
            established.replacing("102513", with: "\(200_000 + number)")
        }.joined()
        #expect(socketRows(tableHeader + text).map(\.inode) == (0..<20_000).map { UInt64(200_000 + $0) })
    }
}

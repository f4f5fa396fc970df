import SystemPackage
import Testing

@testable import SockaliveCore

/// Bytes from hexadecimal text. Text after `#` is a comment.
func bytes(_ hexadecimal: String) -> [UInt8] {
    let digits = hexadecimal.split(separator: "\n").flatMap { line in
        line.prefix { $0 != "#" }.filter { !$0.isWhitespace }
    }
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...($0 + 1)]), radix: 16)! }
}

private let dumpRequest = """
    4c000000 1200 0103 07000000 00000000              # 76 bytes, TCPDIAG_GETSOCK, REQUEST | DUMP, sequence 7
    00 00 00 02                                       # family, prefix lengths, INET_DIAG_INFO
    0000 0000                                         # ports
    00000000 00000000 00000000 00000000               # source
    00000000 00000000 00000000 00000000               # destination
    00000000 00000000 00000000                        # interface, cookie
    02000000 00000000                                 # ESTABLISHED; no tables of another kind
    """

private let exactRequest = """
    48000000 1400 0100 09000000 00000000              # 72 bytes, SOCK_DIAG_BY_FAMILY, REQUEST, sequence 9
    02 06 02 00 ffffffff                              # AF_INET, IPPROTO_TCP, INET_DIAG_INFO, padding, any state
    cd7c 1601                                         # ports 52604 and 5633
    c6336401 00000000 00000000 00000000               # 198.51.100.1
    c0000201 00000000 00000000 00000000               # 192.0.2.1
    00000000 ffffffff ffffffff                        # interface, no cookie
    """

/// A reply of Linux 6.18. Of the attributes that were not requested, only one is kept.
let diagEstablished = """
    a0000000 1200 0200 07000000 6f1b0000              # 160 bytes, TCPDIAG_GETSOCK, MULTI, sequence 7, our port
    02 01 02 00                                       # AF_INET, ESTABLISHED, keepalive timer, no retransmits
    cd7c 1601                                         # ports 52604 and 5633
    c6336401 00000000 00000000 00000000               # 198.51.100.1
    c0000201 00000000 00000000 00000000               # 192.0.2.1
    00000000 1f270000 02000000                        # interface, cookie 0x20000271f
    40e80900 00000000 00000000                        # the timer expires in 649280 ms; queues
    e8030000 c7df0200                                 # user 1000, inode 188359
    0500 0800 00 000000                               # INET_DIAG_TOS
    4000 0200                                         # INET_DIAG_INFO, 60 bytes of it
    01000000 00007a0a e01c0300 409c0000 18020000      # state … wscale, rto, ato, snd_mss
    18020000 00000000 00000000 00000000 00000000      # rcv_mss, unacked, sacked, lost, retrans
    00000000 e9030000 00000000 11270000 b80b0000      # fackets, data sent 1001, ack sent 0, data 10001, ack 3000
    """

let diagMapped = """
    58000000 1200 0200 07000000 6f1b0000
    0a 0a 00 00                                       # AF_INET6, LISTEN, no timer
    1601 0000
    00000000 00000000 0000ffff 7f000001               # ::ffff:127.0.0.1
    00000000 00000000 00000000 00000000
    00000000 20270000 00000000
    00000000 00000000 00000000
    00000000 42e20900                                 # root, inode 647746
    """

let diagDone = "14000000 0300 0200 07000000 6f1b0000 00000000"

/// Reads datagrams as the reply to request 7.
private func read(_ datagrams: [UInt8]...) -> (rows: [SocketRow], progress: SockDiagReply.Progress) {
    var reply = SockDiagReply(sequence: 7)
    var rows: [SocketRow] = []
    var progress = SockDiagReply.Progress.more
    for datagram in datagrams {
        progress = datagram.withUnsafeBytes { reply.read($0) { rows += [$0.row].compactMap(\.self) } }
    }
    return (rows, progress)
}

@Suite struct SockDiagTests {
    @Test func `a request for all established sockets`() {
        #expect(SockDiagRequest.dump(states: [.established], ports: nil, sequence: 7) == bytes(dumpRequest))
        let withListeners = bytes(dumpRequest.replacing("02000000 00000000 ", with: "02040000 00000000 "))
        #expect(SockDiagRequest.dump(states: [.established, .listen], ports: nil, sequence: 7) == withListeners)
        let withHalfClosed = bytes(dumpRequest.replacing("02000000 00000000 ", with: "22010000 00000000 "))
        let selection = SocketSelection(ports: nil, halfClosed: true)
        #expect(SockDiagRequest.dump(states: selection.states, ports: nil, sequence: 7) == withHalfClosed)
    }

    @Test func `a request for one connection`() throws {
        let local = Endpoint(address: try #require(IPAddress("198.51.100.1")), port: 52604)
        let remote = Endpoint(address: try #require(IPAddress("192.0.2.1")), port: 5633)
        let request = SockDiagRequest.exact(family: .ipv4, local: local, remote: remote, sequence: 9)
        #expect(request == bytes(exactRequest))
        let bound = SockDiagRequest.exact(family: .ipv4, local: local, remote: remote, interface: 3, sequence: 9)
        #expect(
            bound == bytes(exactRequest.replacing("00000000 ffffffff ffffffff", with: "03000000 ffffffff ffffffff")))
    }

    @Test func `a bound socket tells the number of its interface`() throws {
        #expect(try #require(read(bytes(diagEstablished)).rows.first).interface == nil)
        let bound = diagEstablished.replacing("00000000 1f270000", with: "03000000 1f270000")
        #expect(read(bytes(bound)).rows.map(\.interface) == [NetworkInterface(index: 3)])
    }

    @Test func `an established socket has endpoints, timer and idle time`() throws {
        let row = try #require(read(bytes(diagEstablished)).rows.first)
        #expect(row.family == .ipv4)
        #expect(row.state == .established)
        #expect("\(row.local) \(row.remote)" == "198.51.100.1:52604 192.0.2.1:5633")
        #expect(row.timer == .keepalive(seconds: 649.28))
        #expect(row.uid == 1000)
        #expect(row.inode == 188359)
        #expect(row.cookie == 0x2_0000_271f)
        #expect(row.idleSeconds == 3)
    }

    /// The later of the two counts, as in the kernel's own keepalive_time_elapsed.
    @Test func `data after the last ACK ends the idle time, too`() {
        let later = diagEstablished.replacing("11270000", with: "f4010000")
        #expect(read(bytes(later)).rows.map(\.idleSeconds) == [0.5])
    }

    @Test func `a listener with a mapped address`() throws {
        let row = try #require(read(bytes(diagMapped)).rows.first)
        #expect(row.family == .ipv6)
        #expect(row.state == .listen)
        #expect("\(row.local)" == "127.0.0.1:5633")
        #expect(row.local.address.bytes == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1])
        #expect(row.idleSeconds == nil)
        #expect(row.inode == 647746)
    }

    @Test(arguments: [
        ("01", SocketRow.Timer.retransmission(seconds: 649.28)), ("03", .other),
        ("04", .windowProbe(seconds: 649.28)), ("00", .none),
    ])
    func `other timers hide an armed keepalive`(kind: String, timer: SocketRow.Timer) {
        let row = diagEstablished.replacing("02 01 02 00 ", with: "02 01 \(kind) 00 ")
        #expect(read(bytes(row)).rows.first?.timer == timer)
    }

    @Test(arguments: ["01 01", "ff 01", "02 02", "02 04", "02 06", "02 ff"])
    func `other families and other states give no row`(start: String) {
        let message = diagEstablished.replacing("02 01 02 00 ", with: "\(start) 02 00 ")
        #expect(read(bytes(message)).rows.isEmpty)
    }

    @Test func `a datagram has many messages, and the end has its own`() {
        let answer = read(bytes(diagEstablished) + bytes(diagMapped), bytes(diagDone))
        #expect(answer.rows.map(\.inode) == [188359, 647746])
        #expect(answer.progress == .done(isConsistent: true))
        #expect(read(bytes(diagEstablished)).progress == .more)
    }

    @Test func `an interrupted dump does not count as complete`() {
        let interrupted = diagEstablished.replacing("1200 0200", with: "1200 1200")
        #expect(read(bytes(interrupted), bytes(diagDone)).progress == .done(isConsistent: false))
    }

    @Test func `errors are reported, at the start and at the end`() {
        let missing = bytes("24000000 0200 0000 07000000 6f1b0000 feffffff 4c000000 1200 0103 07000000 00000000")
        #expect(read(missing).progress == .failed(.noSuchFileOrDirectory))
        let brokenOff = bytes(diagDone.replacing("6f1b0000 00000000", with: "6f1b0000 f4ffffff"))
        #expect(read(brokenOff).progress == .failed(.noMemory))
        #expect(read(bytes("10000000 0200 0000 07000000 00000000")).progress == .failed(.ioError))
        #expect(read(bytes("14000000 0200 0000 07000000 00000000 00000080")).progress == .failed(.ioError))
    }

    @Test func `replies to another request are ignored`() {
        let foreign = diagEstablished.replacing("07000000 6f1b0000", with: "06000000 6f1b0000")
        #expect(read(bytes(foreign), bytes(diagEstablished)).rows.count == 1)
        #expect(read(bytes(diagDone.replacing("07000000", with: "06000000"))).progress == .more)
    }

    @Test func `a message that is cut off at any byte gives no socket`() {
        let whole = bytes(diagEstablished)
        for length in 1..<whole.count {
            let answer = read(Array(whole[..<length]))
            #expect(answer.rows.isEmpty, "cut at \(length)")
            #expect(answer.progress == .failed(.ioError), "cut at \(length)")
        }
    }

    /// The header's length is too small: the fixed part must be complete, and an attribute may be missing.
    @Test func `a shortened message loses its idle time before it loses its socket`() {
        let whole = bytes(diagEstablished)
        for length in 16..<whole.count {
            let message = [UInt8(length), 0, 0, 0] + whole[4..<length]
            let rows = read(message).rows
            #expect(rows.isEmpty == (length < 88), "of \(length) bytes")
            #expect(rows.allSatisfy { $0.inode == 188359 && $0.idleSeconds == nil })
        }
    }
}

@Suite struct PortFilterTests {
    /// The part of the kernel's inet_diag_bc_run that these programs need.
    private func accepts(_ program: [UInt8], local: UInt16, remote: UInt16) -> Bool {
        var position = 0
        while position < program.count {
            let code = program[position]
            func no(at index: Int) -> UInt16 { UInt16(program[index + 2]) | UInt16(program[index + 3]) << 8 }
            let holds =
                switch code {
                case 1: false
                case 2: local >= no(at: position + 4)
                case 3: local <= no(at: position + 4)
                case 4: remote >= no(at: position + 4)
                default: remote <= no(at: position + 4)
                }
            position += holds ? Int(program[position + 1]) : Int(no(at: position))
        }
        return position == program.count
    }

    @Test(arguments: [[5633], [1, 65535], [5633, 5634, 10000], Array(100..<356)] as [[UInt16]])
    func `the filter program accepts the requested ports only`(ports: [UInt16]) throws {
        let program = try #require(PortFilter.program(Set(ports)))
        let probes = Set(ports.flatMap { [$0, $0 &- 1, $0 &+ 1] } + [0, 1, 9999, 65535])
        for port in probes {
            #expect(accepts(program, local: port, remote: 40000) == ports.contains(port))
            #expect(accepts(program, local: 40000, remote: port) == ports.contains(port))
        }
        #expect(accepts(program, local: ports[0], remote: ports[0]))
    }

    @Test func `with too many ports there is no filter`() {
        #expect(PortFilter.program(Set(1...257)) == nil)
        #expect(PortFilter.program([]) == nil)
        let request = SockDiagRequest.dump(states: [.established], ports: Set(1...257), sequence: 7)
        #expect(request == bytes(dumpRequest))
    }
}

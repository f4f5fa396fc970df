import Foundation
import Testing

@testable import SockaliveCore

/// Broken inputs for the parsers of foreign bytes: no parser traps, hangs or reads beyond the end. The same
/// seed gives the same inputs. If a signal ends the run, the log has the parser's name.
@Suite struct FuzzTests {
    enum Parser: String, CaseIterable {
        case socketTable, stat, status, links, netlink, map, thread, code, directory, cgroup, json
    }

    /// For each parser. `SOCKALIVE_TESTS_INPUTS=100000` makes more than a million in all.
    private static let inputs =
        ProcessInfo.processInfo.environment["SOCKALIVE_TESTS_INPUTS"].flatMap { Int($0) } ?? 30_000

    @Test(arguments: Parser.allCases) func `broken input does no harm`(parser: Parser) {
        let memory = GuardedBytes(capacity: 4096)
        var mutator = Mutator(random: SeededGenerator(seed: 20_26), seeds: Self.seeds(parser))
        for _ in 0..<Self.inputs { memory.with(mutator.next()) { Self.parse($0, by: parser) } }
    }

    private static func parse(_ bytes: UnsafeRawBufferPointer, by parser: Parser) {
        switch parser {
        case .socketTable:
            let reader = SocketTableReader(family: bytes.count % 2 == 0 ? .ipv4 : .ipv6) { _, _, _ in true }
            let rows = bytes.withMemoryRebound(to: UInt8.self) { reader.rows(in: $0) }
            for row in rows { _ = row.remote.address.unmapped }
        case .stat: _ = ProcessStat(bytes)?.name.escaped
        case .status: _ = ProcessStatus(bytes)
        case .links:
            _ = bytes.inode(ofKind: "socket")
            _ = bytes.withoutDeletedSuffix.count
        case .netlink:
            var reply = SockDiagReply(sequence: 7)
            _ = reply.read(bytes) { _ = $0.row }
        case .map: _ = bytes.withMemoryRebound(to: UInt8.self) { MemoryMap($0, startOfStack: 0x7ffd_1001_f000) }
        case .thread:
            _ = ProcessStatus(bytes)
            _ = TargetInspector.descriptorLimit(Array(bytes))
        case .code:
            var gadgets = SyscallGadgets(is32Bit: bytes.count % 2 == 0)
            gadgets.search(bytes, at: 0x7f00_0000_0000)
        case .directory: for _ in DirectoryEntries(bytes) {}
        case .cgroup:
            guard let path = CGroupPath(procfs: bytes) else { return }
            _ = path.container.map { path.path(depth: $0.depth).escaped }
        case .json: _ = JSONValue(bytes)?["id"]
        }
    }

    private static func seeds(_ parser: Parser) -> [[UInt8]] {
        switch parser {
        case .socketTable: [Array((tableHeader + ipv4Row).utf8), Array(ipv6Row.utf8)]
        case .stat: [Array("77 (a) b) S 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n".utf8)]
        case .status:
            [Array("Name:\tx\nUmask:\t0022\nTracerPid:\t9\nUid:\t1\t2\t3\t4\nGroups:\t1 2\nCapPrm:\t1f\n".utf8)]
        case .links: [Array("socket:[4711]".utf8), Array("/opt/bin/beremote (deleted)".utf8)]
        case .map: [Array(MemoryMapTests.text.utf8)]
        case .thread:
            [
                Array(
                    "Uid:\t0\t0\t0\t0\nSeccomp:\t2\nSigCgt:\t0402\nNSpid:\t4711\t3\nMax open files  1024 4096 files\n"
                        .utf8)
            ]
        case .code:
            [[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05, 0xc3], [0xb8, 0xad, 0, 0, 0, 0xcd, 0x80, 0x5d, 0x5a]]
        case .directory: [directory]
        case .cgroup:
            [
                Array("1:name=systemd:/a\n0::/machine.slice/libpod-\(Self.containerID).scope/container\n".utf8),
                Array("0::/kubepods/pod0f9e8d7c-6b5a-4938-8271-605f4e3d2c1b/\(Self.containerID)\n".utf8),
                Array("0::/machine.slice/machine-a\\x2db.scope/payload\n".utf8),
            ]
        case .json: [Array(#"[{"id":"a\u00e4\ud83d\ude00","names":["b",null,-1.5e3],"flags":{}}, true]"#.utf8)]
        case .netlink: [bytes(diagEstablished) + bytes(diagMapped), bytes(diagDone)]
        }
    }

    /// A table or dump that is cut off anywhere gives some of its sockets, each of them complete.
    @Test func `input that is cut off gives no wrong socket`() {
        var random = SeededGenerator(seed: 5633)
        for _ in 0..<2_000 {
            let inodes = (0..<(1 + random.below(8))).map { _ in UInt64(1 + random.below(1_000_000)) }
            let text = Array((tableHeader + inodes.map(Self.ipv4Row(inode:)).joined()).utf8)
            let cut = String(decoding: text[..<random.below(text.count)], as: UTF8.self)
            #expect(inodes.starts(with: socketRows(cut).map(\.inode)))

            let dump = inodes.flatMap(Self.diagMessage(inode:))
            var reply = SockDiagReply(sequence: 7)
            var found: [UInt64] = []
            _ = Array(dump[..<random.below(dump.count)]).withUnsafeBytes { reply.read($0) { found.append($0.inode) } }
            #expect(inodes.starts(with: found))
        }
    }

    private static let containerID = String(repeating: "0123456789abcdef", count: 4)
    private static let ipv4Row = ipv4Row(inode: 102513)

    private static func ipv4Row(inode: UInt64) -> String {
        "   2: 0100007F:BD14 0100007F:1601 01 00000000:00000000 02:000AFC80 00000000  1000        0 \(inode)"
            + " 2 000000007bac7fcb 20 0 0 10 -1                    \n"
    }

    private static let ipv6Row =
        "   1: 0000000000000000FFFF00000100007F:1601 0000000000000000FFFF00000200007F:A3F6 0A 00000000:00000000"
        + " 02:00000064 00000000     0        0 7002 1 0000000000000000 20 4 30 10 -1\n"

    private static let established = bytes(diagEstablished)
    /// The entries `4711` and `tty`, as getdents64 returns them.
    private static let directory = bytes(
        """
        01000000 00000000 02000000 00000000 1800 04 34373131 00
        02000000 00000000 03000000 00000000 1800 04 74747900 00
        """)

    private static func diagMessage(inode: UInt64) -> [UInt8] {
        var message = established
        withUnsafeBytes(of: UInt32(inode)) { message.replaceSubrange(84..<88, with: $0) }
        return message
    }
}

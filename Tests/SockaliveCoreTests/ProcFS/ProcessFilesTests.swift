import SystemPackage
import Testing

@testable import SockaliveCore

private func processStat(name: String, fields: String = "S 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0")
    -> ProcessStat?
{
    ProcessStat(Array("77 (\(name)) \(fields)\n".utf8))
}

@Suite struct ProcessFilesTests {
    @Test(arguments: ["beremote", "a b", "x) S 1 (", ")", "", "\u{1b}[2J", "two\nlines", "((("])
    func `the name ends at the last bracket`(name: String) throws {
        let stat = try #require(processStat(name: name))
        #expect(stat.name == UntrustedText(name))
        #expect(stat.state == "S")
        #expect(stat.startTime == 4711)
    }

    /// A process controls the length of its list of mappings.
    @Test func `a file beyond the limit is an error`() throws {
        let procfs = try ProcFS()
        #expect(throws: Errno.fileTooLarge) { try procfs.read("self/maps", limit: 100) { $0.count } }
        #expect(try procfs.read("self/maps", limit: 1 << 20) { $0.count } > 100)
    }

    @Test func `a stat that is cut off is nil`() {
        let whole = Array("77 (beremote) S 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711".utf8)
        for length in 0..<(whole.count - 4) {
            #expect(ProcessStat(whole[..<length]) == nil, "cut at \(length)")
        }
        #expect(ProcessStat(whole)?.startTime == 4711)
    }

    /// Fields 28 and 52. Both are 0 for a reader without the right to see them.
    @Test func `stat tells where the stack began, and how a thread was stopped`() {
        let start = "t 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2 3 4 5"
        let end = "0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 5 6 7 8 9 10 11"
        let stat = processStat(name: "x", fields: "\(start) 140724603453440 \(end) 32773")
        #expect(stat?.startOfStack == 140_724_603_453_440 && stat?.exitCode == 128 << 8 | 5)
        let hidden = processStat(name: "x", fields: "\(start) 0 \(end) 0")
        #expect(hidden != nil && hidden?.startOfStack == nil && hidden?.exitCode == nil)
        #expect(processStat(name: "x")?.exitCode == nil)
    }

    @Test func `status gives the effective user, the tracer and the seccomp mode`() throws {
        let text = "Name:\tUid:\\n0\nUmask:\t0022\nTracerPid:\t99\nUid:\t1000\t1001\t1002\t1003\nSeccomp:\t2\n"
        let status = try #require(ProcessStatus(Array(text.utf8)))
        #expect(status.uid == 1001)
        #expect(status.tracer == 99)
        #expect(status.seccomp == 2)
    }

    @Test(arguments: ["", "Uid:", "Uid:\t1", "Uid:\tx\ty\tz\tw\n", "Name:\tUid: 0 0 0 0"])
    func `a status without a user is nil`(text: String) {
        #expect(ProcessStatus(Array(text.utf8)) == nil)
    }

    @Test func `an io_uring lists its sockets, or does not`() {
        func files(_ text: String) -> RingFiles { RingFiles(Array("pos:\t0\nSqThread:\t-1\n\(text)".utf8)) }
        let listed = files("UserFiles:\t4\n    0: socket:[7]\n    1: /tmp/a b\n    3: socket:[8]\nUserBufs:\t0\n")
        #expect(listed.sockets == [7, 8] && !listed.isIncomplete)
        // Behind the list.
        #expect(files("UserFiles:\t1\n    0: /x\nUserBufs:\t1\n    0: socket:[9]\n").sockets.isEmpty)
        let none = files("UserFiles:\t0\nUserBufs:\t0\n")
        #expect(none.sockets.isEmpty && !none.isIncomplete)
        // The ring was busy, an older kernel, no right to read.
        for text in [
            "UserFiles:\t4\nUserBufs:\t0\n", "UserFiles:\t2\n    0: TCP\n    1: <none>\n", "", "UserFiles:\tx\n",
        ] {
            #expect(files(text).isIncomplete && files(text).sockets.isEmpty, "\(text)")
        }
    }

    @Test func `links give the inode of sockets and namespaces`() {
        #expect(Array("socket:[4711]".utf8).inode(ofKind: "socket") == 4711)
        #expect(Array("net:[4026531840]".utf8).inode(ofKind: "net") == 4_026_531_840)
        for text in ["", "socket:[]", "socket:[4711", "socket:4711]", "pipe:[4711]", "/tmp/socket:[1]", "socket:[-1]"] {
            #expect(Array(text.utf8).inode(ofKind: "socket") == nil, "\(text)")
        }
    }
}

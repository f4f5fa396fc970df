import CSockalive
import Glibc
import SystemPackage
import Testing

@testable import SockaliveCore

private var mayHaveManyDescriptors: Bool {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    return limit.rlim_max >= 20_000
}

/// A child with thousands of descriptors, whose links several threads read.
@Suite(.enabled(if: mayHaveManyDescriptors, "so many open files are not allowed here (ulimit -Hn)"))
struct LiveLargeProcessTests {
    /// Each has sockets at certain numbers, and nothing between them.
    private final class Child {
        let pid: Int32
        /// The child's own end, a socket, too: the one with the highest number.
        let channelNumber: Int32
        private let channel: Int32

        /// - Parameters:
        ///   - move: done by the child when it is told to: from a number to another one.
        ///   - accepts: the child sleeps in accept(2), for which it has taken one more number.
        init(
            socketsAt numbers: [Int32], move: (from: Int32, to: Int32)? = nil, accepts: Bool = false
        ) throws {
            var ends: [Int32] = [-1, -1]
            try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
            let (its, highest) = (ends[1], (numbers.max() ?? 0) + 1)
            channel = ends[0]
            channelNumber = highest
            pid = sockalive_fork()
            if pid == 0 {
                var limit = rlimit(rlim_cur: 20_000, rlim_max: 20_000)
                setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
                let channel = dup2(its, highest)
                // Those of other tests, too.
                for number in 3..<20_000 as Range<Int32> where number != channel { close(number) }
                for number in numbers {
                    let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                    if socket != number {
                        dup2(socket, number)
                        close(socket)
                    }
                }
                var byte: UInt8 = 0
                write(channel, &byte, 1)
                if accepts, let number = numbers.first {
                    listen(number, 1)
                    accept(number, nil, nil)
                }
                while read(channel, &byte, 1) == 1 {
                    if let move {
                        dup2(move.from, move.to)
                        close(move.from)
                    }
                    write(channel, &byte, 1)
                }
                _exit(0)
            }
            close(its)
            hear()
        }

        /// How many numbers it has taken beyond the first three (proc_pid_fd(5)).
        var taken: Int {
            get throws {
                var status = stat()
                try #require(stat("/proc/\(pid)/fd", &status) == 0)
                return Int(status.st_size) - 3
            }
        }

        private func hear() {
            var byte: UInt8 = 0
            read(channel, &byte, 1)
        }

        func move() {
            var byte: UInt8 = 0
            write(channel, &byte, 1)
            hear()
        }

        deinit {
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
            close(channel)
        }
    }

    private static let layouts: [String: [Int32]] = [
        "no gap": Array(10..<3000),
        "small gaps": (10..<6000).filter { $0 % 2 == 0 || $0 % 1024 > 512 },
        "far apart": Array(stride(from: 10, to: 19_000, by: 397)),
        "gaps before and behind many": Array(10..<1500) + [7000, 7001] + Array(12_000..<12_800) + [19_000],
    ]

    /// Not a thousand numbers in a message.
    private func expect(_ sockets: [SocketDescriptor]?, at numbers: [Int32], _ line: SourceLocation = #_sourceLocation)
    {
        let found = sockets?.map(\.fd) ?? []
        let difference = Array(Set(found).symmetricDifference(numbers).sorted().prefix(5))
        #expect(difference == [] && found.count == numbers.count, "\(difference)", sourceLocation: line)
    }

    @Test(arguments: layouts.keys.sorted())
    func `each socket is found once, whatever gaps there are between the numbers`(layout: String) throws {
        let numbers = try #require(Self.layouts[layout])
        let child = try Child(socketsAt: numbers)
        let procfs = try ProcFS()
        for threads in [1, 3] {
            let reading = try LargeProcess.read(child.pid, procfs, threads: threads, nil, stopReason: { nil })
            let links = try #require(reading).links
            expect(links.table.sockets, at: numbers + [child.channelNumber])
            #expect(!links.hasVanished)
            expect(
                try procfs.descriptors(in: "\(child.pid)/fd", first: links)?.sockets,
                at: numbers + [child.channelNumber])
        }
    }

    /// By dup2(2) and close(2): to a number that was asked for before, from one that is asked for later.
    /// That one was asked for itself, or is in a gap that the kernel left out of its list.
    @Test(arguments: [505, 600] as [Int32])
    func `a descriptor that is moved meanwhile is found`(to number: Int32) throws {
        let numbers = Array(Int32(10)..<500) + Array(700..<3000)
        let child = try Child(socketsAt: numbers, move: (from: 2999, to: number))
        let procfs = try ProcFS()
        // Before Linux 6.2 nobody tells how many there are, and no process is large.
        guard LargeProcess.isLarge(child.pid, procfs) else { return }
        let table = LargeProcess.Table(minSockets: 1) {
            child.move()
            return nil
        }
        let reading = try LargeProcess.read(child.pid, procfs, threads: 1, table, stopReason: { nil })
        let links = try #require(reading).links
        let sockets = try procfs.descriptors(in: "\(child.pid)/fd", first: links)?.sockets
        expect(sockets, at: numbers.dropLast() + [number, child.channelNumber])
    }

    /// The kernel counts it, and it has no link.
    @Test func `a number that waits for its connection is not one that was moved`() throws {
        let numbers = Array(Int32(10)..<3000)
        let child = try Child(socketsAt: numbers, accepts: true)
        let procfs = try ProcFS()
        guard LargeProcess.isLarge(child.pid, procfs) else { return }
        while try child.taken <= numbers.count + 1 { usleep(1000) }
        let reading = try LargeProcess.read(child.pid, procfs, threads: 3, nil, stopReason: { nil })
        let links = try #require(reading).links
        expect(links.table.sockets, at: numbers + [child.channelNumber])
        // Else all would be read once more, in each run.
        #expect(!links.hasVanished)
    }
}

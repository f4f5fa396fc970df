import Glibc
import Synchronization

/// A call of a worker that may never return, because a target, its files or its sockets decide about that.
package enum WorkerStep: UInt8, Sendable, CaseIterable {
    case none
    /// Between two sockets, or asleep until the next look.
    case waiting
    case processNames, user, identity, namespace, executable, descriptors, threads
    case socketTable
    case borrow, options, close
    case inspect, seize, stop, memory
    case helper
    case cgroup, arguments, containerNames
    /// Only shown: nothing depends on the answer.
    case details

    /// What the worker waits for, in words.
    ///
    /// - Parameter pid: 0 for no process in particular.
    package func words(_ pid: Int32) -> String {
        if pid == 0 && [.user, .identity, .namespace, .executable, .descriptors].contains(self) {
            return "a file of a process in /proc"
        }
        return switch self {
        case .none, .waiting: "its own work"
        case .processNames: "the names in /proc"
        case .user: "/proc/\(pid)/status"
        case .identity: "/proc/\(pid)/stat"
        case .namespace: "the link /proc/\(pid)/ns/net"
        case .executable: "the file behind /proc/\(pid)/exe"
        case .descriptors: "the links in /proc/\(pid)/fd"
        case .threads: "kcmp(2) of its threads"
        case .socketTable: "the kernel's socket table (sock_diag)"
        case .borrow: "pidfd_getfd(2)"
        case .options: "getsockopt(2) or setsockopt(2), which wait for the socket's lock"
        case .close: "close(2) of the borrowed descriptor"
        case .inspect: "its memory map or its program file"
        case .seize: "ptrace(2), PTRACE_SEIZE"
        case .stop: "the stop of a thread"
        case .memory: "a page of its memory"
        case .helper: "a helper process with the rights of its user"
        case .cgroup: "/proc/\(pid)/cgroup"
        case .arguments: "the arguments in /proc/\(pid)/cmdline"
        case .containerNames: "a file with the name of its container"
        case .details: "its command line, or a file with the name of its container"
        }
    }

    /// Whether the call is about one socket; the process itself could be looked at.
    package var isAboutSocket: Bool {
        switch self {
        case .borrow, .options, .close, .inspect, .seize, .stop, .memory, .helper: true
        default: false
        }
    }

    /// Whether the call waits for the lock of the socket, so that every other holder of it waits, too.
    package var locksSocket: Bool { self == .options || self == .close }
}

/// Where a worker is.
package struct WorkerPosition: Equatable, Sendable {
    package let step: WorkerStep
    /// 0: no process in particular.
    package let pid: Int32
    /// 0: no socket in particular.
    package let inode: UInt64
    /// The processes whose links the threads of a scan read.
    package let scanned: [Int32]

    package init(step: WorkerStep, pid: Int32 = 0, inode: UInt64 = 0, scanned: [Int32] = []) {
        self.step = step
        self.pid = pid
        self.inode = inode
        self.scanned = scanned
    }
}

/// A worker says where it is before each call that may never return. One store into shared memory is all that this costs.
package enum WorkerProgress {
    /// nil in a process that nobody supervises.
    nonisolated(unsafe) private static var page: WorkerPage?
    nonisolated(unsafe) private static var last = WorkerPosition(step: .none)

    /// Whether another process kills this one when a call does not return.
    package static var isSupervised: Bool { page != nil }

    package static func report(to page: WorkerPage?) {
        self.page = page
        // A helper of a worker has no page, and tells whether it holds a thread all the same.
        if let page { holdWord = page.holdWord }
    }

    nonisolated(unsafe) private static var holdWord: UnsafeMutablePointer<Atomic<UInt64>>?

    package static func enter(_ step: WorkerStep, _ pid: Int32 = 0, inode: UInt64 = 0) {
        guard let page else { return }
        last = WorkerPosition(step: step, pid: pid, inode: inode)
        page.store(last)
    }

    /// One thread of a scan reads a link of a process; 0: of none.
    static func scan(_ pid: Int32, thread: Int) {
        page?.store(scanned: pid, thread)
    }

    /// How many threads of a scan can say where they are.
    static let maxScanThreads = 4

    /// The next call about the same process and socket.
    package static func enter(next step: WorkerStep) {
        if let beat, step == .stop { beat() }
        guard page != nil else { return }
        enter(step, last.pid, inode: last.inode)
    }

    /// Called while this process waits for the stop of a thread that it holds, if it has no page: a helper tells its
    /// worker so.
    nonisolated(unsafe) static var beat: (() -> Void)?

    /// Whether a thread is held that does not recover by itself if this process is killed.
    nonisolated(unsafe) private(set) static var isHoldUnsafe = false

    static func hold(isUnsafe: Bool) {
        isHoldUnsafe = isUnsafe
        holdWord?.pointee.store(isUnsafe ? 1 : 0, ordering: .sequentiallyConsistent)
    }
}

/// Memory that a worker and its parent share: the worker's position, and a ring of bytes from the worker to the parent.
///
/// The parent can read it after the worker has died or hangs: nothing that the worker has said is lost then.
package final class WorkerPage: @unchecked Sendable {
    fileprivate typealias Word = Atomic<UInt64>

    /// Bytes that the parent has not read yet. A worker that has more to say waits.
    package static let ringSize = 1 << 20
    private static let headerSize = 4096
    private static let wordCount = 5 + WorkerProgress.maxScanThreads
    private static let size = headerSize + ringSize

    private let memory: UnsafeMutableRawPointer
    /// Step, process and a count; the inode; how much was written to the ring, and read from it; a process for each
    /// thread of a scan; 1 when all is done.
    private let words: UnsafeMutablePointer<Word>
    /// 1 while a target would be harmed by the death of the worker, or of a helper of it, which has this word, too.
    fileprivate let holdWord: UnsafeMutablePointer<Word>
    private var ring: UnsafeMutableRawPointer { memory + Self.headerSize }
    /// Of the writer alone.
    private var count: UInt64 = 0

    /// nil where there is no memory. The kernel gives pages as they are touched.
    package init?() {
        let flags = MAP_SHARED | MAP_ANONYMOUS
        guard let mapped = mmap(nil, Self.size, PROT_READ | PROT_WRITE, flags, -1, 0), mapped != MAP_FAILED else {
            return nil
        }
        guard let hold = mmap(nil, Self.headerSize, PROT_READ | PROT_WRITE, flags, -1, 0), hold != MAP_FAILED else {
            munmap(mapped, Self.size)
            return nil
        }
        holdWord = hold.bindMemory(to: Word.self, capacity: 1)
        holdWord.initialize(to: Word(0))
        memory = mapped
        words = mapped.bindMemory(to: Word.self, capacity: Self.wordCount)
        for index in 0..<Self.wordCount { (words + index).initialize(to: Word(0)) }
    }

    deinit {
        munmap(memory, Self.size)
        munmap(holdWord, Self.headerSize)
    }

    /// A process that is forked from now on does not have it.
    package func keepFromChildren() {
        madvise(memory, Self.size, MADV_DONTFORK)
    }

    // MARK: the position

    func store(_ position: WorkerPosition) {
        count &+= 1
        words[1].store(position.inode, ordering: .relaxed)
        let pid = UInt64(UInt32(bitPattern: position.pid))
        words[0].store(pid << 32 | UInt64(position.step.rawValue) << 24 | count & 0xff_ffff, ordering: .releasing)
    }

    package var position: WorkerPosition {
        var word = mark
        var inode = words[1].load(ordering: .relaxed)
        // A worker that runs may write both meanwhile.
        for _ in 0..<1000 where mark != word {
            word = mark
            inode = words[1].load(ordering: .relaxed)
        }
        let scanned = (4..<Self.wordCount - 1).map { Int32(truncatingIfNeeded: words[$0].load(ordering: .relaxed)) }
        return WorkerPosition(
            step: WorkerStep(rawValue: UInt8(truncatingIfNeeded: word >> 24)) ?? .none,
            pid: Int32(truncatingIfNeeded: word >> 32), inode: inode,
            scanned: scanned.filter { $0 > 0 })
    }

    /// Whether the worker has come to the end of its work.
    var isDone: Bool {
        get { words[Self.wordCount - 1].load(ordering: .acquiring) != 0 }
        set { words[Self.wordCount - 1].store(newValue ? 1 : 0, ordering: .releasing) }
    }

    func store(isHoldUnsafe: Bool) {
        holdWord.pointee.store(isHoldUnsafe ? 1 : 0, ordering: .sequentiallyConsistent)
    }

    package var isHoldUnsafe: Bool { holdWord.pointee.load(ordering: .sequentiallyConsistent) != 0 }

    fileprivate func store(scanned pid: Int32, _ thread: Int) {
        words[4 + thread].store(UInt64(UInt32(bitPattern: pid)), ordering: .relaxed)
    }

    /// It differs from an earlier one if the worker has entered another step since.
    package var mark: UInt64 { words[0].load(ordering: .acquiring) }

    // MARK: the ring

    /// - Parameter whenFull: called as long as nothing can be written.
    package func write(_ bytes: UnsafeRawBufferPointer, whenFull: () -> Void) {
        var rest = bytes
        while !rest.isEmpty {
            let written = words[2].load(ordering: .relaxed)
            let free = Self.ringSize - Int(written &- words[3].load(ordering: .acquiring))
            guard free > 0 else {
                whenFull()
                continue
            }
            let start = Int(written % UInt64(Self.ringSize))
            let size = min(free, rest.count, Self.ringSize - start)
            (ring + start).copyMemory(from: rest.baseAddress!, byteCount: size)
            words[2].store(written &+ UInt64(size), ordering: .releasing)
            rest = UnsafeRawBufferPointer(rebasing: rest[size...])
        }
    }

    /// Whether so many bytes can be written without waiting.
    func hasRoom(_ count: Int) -> Bool {
        let used = Int(words[2].load(ordering: .relaxed) &- words[3].load(ordering: .acquiring))
        return Self.ringSize - used >= count
    }

    /// Takes what was written since.
    package func read(into bytes: inout [UInt8]) {
        var taken = words[3].load(ordering: .relaxed)
        // The other process may be out of its mind: never more than the ring holds.
        var left = min(Int(truncatingIfNeeded: words[2].load(ordering: .acquiring) &- taken), Self.ringSize)
        while left > 0 {
            let start = Int(taken % UInt64(Self.ringSize))
            let size = min(left, Self.ringSize - start)
            bytes.append(contentsOf: UnsafeRawBufferPointer(start: ring + start, count: size))
            taken &+= UInt64(size)
            left -= size
            words[3].store(taken, ordering: .releasing)
        }
    }
}

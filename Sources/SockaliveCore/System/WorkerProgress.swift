import CSockalive
import Glibc
import Synchronization

/// A worker says where it is before each call that may never return. One store into shared memory is all that this costs.
package enum WorkerProgress {
    /// nil in a process that nobody supervises. Several threads use it for each socket, and none of them counts its
    /// references: it stays for as long as the process.
    nonisolated(unsafe) fileprivate static var page: Unmanaged<WorkerPage>?

    /// Whether another process kills this one when a call does not return.
    package static var isSupervised: Bool { page != nil }

    package static func report(to page: WorkerPage?) {
        self.page = page.map(Unmanaged.passRetained)
        // A helper of a worker has no page, and tells whether it holds a thread all the same.
        if let page { holdWord = page.holdWord }
    }

    nonisolated(unsafe) private static var holdWord: UnsafeMutablePointer<Atomic<UInt64>>?

    /// By the main thread.
    package static func enter(_ step: WorkerStep, _ pid: Int32 = 0, inode: UInt64 = 0) {
        WorkerThread.main.enter(step, pid, inode: inode)
    }

    /// One thread of a scan reads a link of a process; 0: of none.
    static func scan(_ pid: Int32, thread: Int) {
        page?._withUnsafeGuaranteedRef { $0.store(scanned: pid, thread) }
    }

    /// How many threads of a scan can say where they are.
    static let maxScanThreads = 4

    /// The next call about the same process and socket, by the main thread.
    package static func enter(next step: WorkerStep) {
        if let beat, step == .stop || step == .inspect { beat() }
        WorkerThread.main.enter(next: step)
    }

    /// Called while this process waits for the stop of a thread that it holds, or chooses another one, if it has no page:
    /// a helper tells its worker so.
    nonisolated(unsafe) static var beat: (() -> Void)?

    /// Whether a thread is held that does not recover by itself if this process is killed.
    nonisolated(unsafe) private(set) static var isHoldUnsafe = false

    static func hold(isUnsafe: Bool) {
        isHoldUnsafe = isUnsafe
        holdWord?.pointee.store(isUnsafe ? 1 : 0, ordering: .sequentiallyConsistent)
    }

    /// Whether a thread of this worker hangs, so that no other is to begin anything new.
    static var isSharingOver: Bool { page?._withUnsafeGuaranteedRef { $0.isSharingOver } ?? false }
}

/// A thread of a worker that makes calls about sockets, and says where it is.
struct WorkerThread: Sendable {
    let number: Int

    static let main = WorkerThread(number: 0)
    /// The main thread and four others.
    static let maxCount = 5

    /// To be called by the thread itself.
    private func begin() {
        WorkerProgress.page?._withUnsafeGuaranteedRef { $0.store(thread: sockalive_thread_id(), number) }
        // If another thread never ends (state D), its table of descriptors stays, and with it each socket that was just
        // borrowed: its owner's close(2) would send no FIN. Where a sandbox forbids it, the table is shared.
        _ = sockalive_unshare(CLONE_FILES)
    }

    /// Runs `body` on threads that say where they are. The main thread only waits (``startThreads(_:_:_:)``).
    ///
    /// - Returns: how many threads could be had.
    static func share(among count: Int, _ body: (WorkerThread) -> Void) -> Int {
        withoutActuallyEscaping(body) { body in
            let threadBody = ThreadBody(body)
            WorkerProgress.enter(.sharedSockets)
            let threads = startThreads(count, Unmanaged.passUnretained(threadBody).toOpaque()) { threadBody in
                Unmanaged<ThreadBody>.fromOpaque(threadBody!).takeUnretainedValue().run()
                return nil
            }
            for thread in threads { pthread_join(thread, nil) }
            withExtendedLifetime(threadBody) {}
            return threads.count
        }
    }

    private final class ThreadBody: @unchecked Sendable {
        private let body: (WorkerThread) -> Void
        private let next = Atomic<Int>(WorkerThread.main.number + 1)

        init(_ body: @escaping (WorkerThread) -> Void) {
            self.body = body
        }

        func run() {
            let thread = WorkerThread(number: next.wrappingAdd(1, ordering: .relaxed).oldValue)
            thread.begin()
            body(thread)
            thread.enter(.none)
        }
    }

    func enter(_ step: WorkerStep, _ pid: Int32 = 0, inode: UInt64 = 0) {
        WorkerProgress.page?._withUnsafeGuaranteedRef {
            $0.store(WorkerPosition(step: step, pid: pid, inode: inode), of: number)
        }
    }

    /// The next call about the same process and socket.
    func enter(next step: WorkerStep) {
        WorkerProgress.page?._withUnsafeGuaranteedRef { $0.store(step, of: number) }
    }
}

/// How the sockets of a run are shared out among threads.
struct Sharing: Sendable {
    let threads: Int
    /// Fewer sockets are not worth a thread.
    let minSockets: Int

    static var standard: Sharing {
        Sharing(threads: Int(sockalive_processors()), minSockets: 1000)
    }

    static let none = Sharing(threads: 1, minSockets: .max)

    /// How many threads so many sockets are worth.
    func threads(for sockets: Int) -> Int {
        sockets < minSockets ? 1 : min(threads, WorkerThread.maxCount - 1)
    }
}

/// Memory that a worker and its parent share: the positions of the worker's threads, and a ring of bytes from the worker
/// to the parent.
///
/// The parent can read it after the worker has died or hangs: nothing that the worker has said is lost then.
package final class WorkerPage: @unchecked Sendable {
    fileprivate typealias Word = Atomic<UInt64>

    /// Bytes that the parent has not read yet. A worker that has more to say waits.
    package static let ringSize = 1 << 22
    private static let partSize = 1 << 17
    static let partCount = ringSize / partSize
    private static let headerSize = 4096
    private static let wordCount = 512
    private static let size = headerSize + ringSize

    /// Words that different threads write lie in different cache lines.
    private enum Place {
        static let written = 0
        static let read = 16
        static let isDone = 32
        static let isSharingOver = 33
        static let scanned = 48
        static let threads = 64
        static let wordsPerThread = 16
    }

    private let memory: UnsafeMutableRawPointer
    private let words: UnsafeMutablePointer<Word>
    /// 1 while a target would be harmed by the death of the worker, or of a helper of it, which has this word, too.
    fileprivate let holdWord: UnsafeMutablePointer<Word>
    private var ring: UnsafeMutableRawPointer { memory + Self.headerSize }

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

    // MARK: positions

    /// Of a thread: step, process and a count; the inode; the number that the kernel gave it.
    private func positionWords(of thread: Int) -> UnsafeMutablePointer<Word> {
        words + Place.threads + Place.wordsPerThread * thread
    }

    /// Only the thread itself writes there.
    func store(_ position: WorkerPosition, of thread: Int = 0) {
        let own = positionWords(of: thread)
        own[1].store(position.inode, ordering: .relaxed)
        let pid = UInt64(UInt32(bitPattern: position.pid))
        let count = (own[0].load(ordering: .relaxed) &+ 1) & 0xff_ffff
        own[0].store(pid << 32 | UInt64(position.step.rawValue) << 24 | count, ordering: .releasing)
    }

    /// The same process and socket.
    fileprivate func store(_ step: WorkerStep, of thread: Int) {
        let word = positionWords(of: thread)
        let old = word.pointee.load(ordering: .relaxed)
        let count = (old &+ 1) & 0xff_ffff
        word.pointee.store(old & ~0xffff_ffff | UInt64(step.rawValue) << 24 | count, ordering: .releasing)
    }

    fileprivate func store(thread id: Int32, _ thread: Int) {
        positionWords(of: thread)[2].store(UInt64(UInt32(bitPattern: id)), ordering: .relaxed)
    }

    /// nil for the main thread, and for one that has not begun.
    func threadID(of thread: Int) -> Int32? {
        let id = Int32(truncatingIfNeeded: positionWords(of: thread)[2].load(ordering: .relaxed))
        return id > 0 ? id : nil
    }

    func position(of thread: Int) -> WorkerPosition {
        let own = positionWords(of: thread)
        var word = mark(of: thread)
        var inode = own[1].load(ordering: .relaxed)
        // A worker that runs may write both meanwhile.
        for _ in 0..<1000 where mark(of: thread) != word {
            word = mark(of: thread)
            inode = own[1].load(ordering: .relaxed)
        }
        let scanned = (0..<WorkerProgress.maxScanThreads).map {
            Int32(truncatingIfNeeded: words[Place.scanned + $0].load(ordering: .relaxed))
        }
        return WorkerPosition(
            step: Self.step(word), pid: Int32(truncatingIfNeeded: word >> 32), inode: inode,
            scanned: thread == 0 ? scanned.filter { $0 > 0 } : [])
    }

    private static func step(_ mark: UInt64) -> WorkerStep {
        WorkerStep(rawValue: UInt8(truncatingIfNeeded: mark >> 24)) ?? .none
    }

    /// Threads that are at work: the main thread, unless it waits for others; and those, if they have something to do.
    var busyThreads: [Int] {
        let others = (1..<WorkerThread.maxCount).filter { Self.step(mark(of: $0)) != .none }
        return others.isEmpty || Self.step(mark(of: 0)) != .sharedSockets ? [0] + others : others
    }

    /// Whether the worker has come to the end of its work.
    var isDone: Bool {
        get { words[Place.isDone].load(ordering: .acquiring) != 0 }
        set { words[Place.isDone].store(newValue ? 1 : 0, ordering: .releasing) }
    }

    /// Set by the parent.
    var isSharingOver: Bool {
        get { words[Place.isSharingOver].load(ordering: .relaxed) != 0 }
        set { words[Place.isSharingOver].store(newValue ? 1 : 0, ordering: .relaxed) }
    }

    func store(isHoldUnsafe: Bool) {
        holdWord.pointee.store(isHoldUnsafe ? 1 : 0, ordering: .sequentiallyConsistent)
    }

    package var isHoldUnsafe: Bool { holdWord.pointee.load(ordering: .sequentiallyConsistent) != 0 }

    fileprivate func store(scanned pid: Int32, _ thread: Int) {
        words[Place.scanned + thread].store(UInt64(UInt32(bitPattern: pid)), ordering: .relaxed)
    }

    /// It differs from an earlier one if the thread has entered another step since.
    func mark(of thread: Int) -> UInt64 { positionWords(of: thread).pointee.load(ordering: .acquiring) }

    // MARK: the ring

    /// - Parameter whenFull: called as long as nothing can be written.
    package func write(_ bytes: UnsafeRawBufferPointer, whenFull: () -> Void) {
        var rest = bytes
        while !rest.isEmpty {
            let written = words[Place.written].load(ordering: .relaxed)
            let free = Self.ringSize - Int(written &- words[Place.read].load(ordering: .acquiring))
            guard free > 0 else {
                whenFull()
                continue
            }
            let start = Int(written % UInt64(Self.ringSize))
            let size = min(free, rest.count, Self.ringSize - start)
            (ring + start).copyMemory(from: rest.baseAddress!, byteCount: size)
            words[Place.written].store(written &+ UInt64(size), ordering: .releasing)
            rest = UnsafeRawBufferPointer(rebasing: rest[size...])
        }
    }

    /// Whether so many bytes can be written without waiting.
    func hasRoom(_ count: Int) -> Bool { Self.ringSize - unread >= count }

    /// Bytes that the parent has not read yet.
    var unread: Int {
        // The other process may be out of its mind.
        let count = words[Place.written].load(ordering: .relaxed) &- words[Place.read].load(ordering: .acquiring)
        return Int(truncatingIfNeeded: count)
    }

    /// Takes what was written since, or a part of it: what stays in the processor's cache, and takes no new memory.
    package func read(into bytes: inout [UInt8]) {
        var taken = words[Place.read].load(ordering: .relaxed)
        // The other process may be out of its mind: never more than the ring holds.
        let written = words[Place.written].load(ordering: .acquiring)
        var left = min(Int(truncatingIfNeeded: written &- taken), Self.partSize)
        while left > 0 {
            let start = Int(taken % UInt64(Self.ringSize))
            let size = min(left, Self.ringSize - start)
            bytes.append(contentsOf: UnsafeRawBufferPointer(start: ring + start, count: size))
            taken &+= UInt64(size)
            left -= size
            words[Place.read].store(taken, ordering: .releasing)
        }
    }
}

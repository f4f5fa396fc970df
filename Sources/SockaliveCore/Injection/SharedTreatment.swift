import CSockalive
import Glibc
import Synchronization

/// Borrowed sockets that several threads of a worker treat at the same time. A call on one socket waits for nothing that
/// a call on another one holds.
///
/// Whatever does not succeed at once is left to the main thread, which then works alone. Each thread says where it is
/// (``WorkerThread``). If one hangs, the parent lets the others finish the socket that they are at, and kills all.
final class SharedTreatment: @unchecked Sendable {
    /// A socket by its number among the candidates, and how it is borrowed.
    struct Item {
        let index: Int
        let loan: Loan
    }

    /// What is left afterwards.
    struct Rest {
        var isTreated: [Bool]
        /// What the treatment of some sockets that are not has met.
        var errors: [Int: any Error] = [:]
        var shares: KeepaliveRun.TimeShares
    }

    /// What one thread does with one socket.
    enum Outcome {
        case treated(SocketResult)
        /// The operation has failed: it may have set something.
        case failed(any Error)
        /// It was not borrowed, and nothing was done.
        case untouched
    }

    private let items: UnsafeBufferPointer<Item>
    private let candidates: UnsafeBufferPointer<AssignedSocket>
    private let rest: Locked<Rest>
    private let nextItem = Atomic<Int>(0)
    /// A process, or a user, has used up the time that it has before others.
    private let isSlow = Atomic<Bool>(false)

    /// So many sockets a thread takes at once. The marks of neighbours in ``Rest/isTreated`` lie in one cache line, which
    /// the threads take from each other: with 16, 18,000 sockets took 2% longer.
    private static let portion = 64
    /// How often each thread asks whether it is to stop.
    private static let askInterval = Duration.milliseconds(1)

    private init(
        _ candidates: UnsafeBufferPointer<AssignedSocket>, _ items: UnsafeBufferPointer<Item>,
        _ shares: KeepaliveRun.TimeShares
    ) {
        self.candidates = candidates
        self.items = items
        rest = Locked(Rest(isTreated: Array(repeating: false, count: candidates.count), shares: shares))
    }

    /// Treats the items. Returns when all threads have ended.
    ///
    /// - Parameters:
    ///   - items: of the candidates, those that any thread can borrow.
    ///   - stopReason: asked before a socket, each millisecond at most, by each thread.
    ///   - treat: called by all threads at a time.
    ///   - slow: told of each process that has used up its time, by one thread at a time.
    ///   - report: told of each result as it comes, in the same way.
    static func rest(
        of candidates: UnsafeBufferPointer<AssignedSocket>, _ items: UnsafeBufferPointer<Item>, threads: Int,
        _ shares: KeepaliveRun.TimeShares, stopReason: () -> StopReason?, treat: (Item, WorkerThread) -> Outcome,
        slow: (Int32) -> Void, report: (Int, SocketResult) -> Void
    ) -> Rest {
        let shared = SharedTreatment(candidates, items, shares)
        // Where no thread can be had, everything is left to the main thread.
        _ = WorkerThread.share(among: threads) { shared.work($0, stopReason, treat, slow, report) }
        WorkerProgress.enter(.waiting)
        return shared.rest.withLock { $0 }
    }

    /// The threads share no object whose references each of them counts for each socket: they would wait for each other.
    /// That is why the closures are arguments: one that an object holds is retained for each call.
    private func work(
        _ thread: WorkerThread, _ stopReason: () -> StopReason?, _ treat: (Item, WorkerThread) -> Outcome,
        _ slow: (Int32) -> Void, _ report: (Int, SocketResult) -> Void
    ) {
        let (items, rest) = (items, rest)
        var asked: ContinuousClock.Instant?
        while true {
            let start = nextItem.add(Self.portion, ordering: .relaxed).oldValue
            guard start < items.count else { return }
            for item in items[start..<min(start + Self.portion, items.count)] {
                thread.enter(.waiting)
                if WorkerProgress.isSharingOver { return }
                var begin = ContinuousClock.now
                if asked.map({ begin - $0 > Self.askInterval }) ?? true {
                    if stopReason() != nil { return }
                    asked = begin
                }
                if isSlow.load(ordering: .relaxed) {
                    if isUsedUp(item) { continue }
                    begin = .now
                }
                let outcome = treat(item, thread)
                // Not how long others, or a slow reader of the report, are waited for.
                add(.now - begin, item, slow)
                thread.enter(.waiting)
                switch outcome {
                case .treated(let result):
                    rest.withLock {
                        report(item.index, result)
                        $0.isTreated[item.index] = true
                    }
                case .failed(let error): rest.withLock { $0.errors[item.index] = error }
                case .untouched: break
                }
            }
        }
    }

    private func isUsedUp(_ item: Item) -> Bool {
        let process = candidates[item.index].socket.process
        return rest.withLock { $0.shares.areUsedUp(by: process) }
    }

    private func add(_ time: Duration, _ item: Item, _ slow: (Int32) -> Void) {
        guard time > KeepaliveRun.TimeShares.usual else { return }
        let process = candidates[item.index].socket.process
        let isUsedUp = rest.withLock {
            if $0.shares.add(time, of: process) { slow(process.pid) }
            return $0.shares.areUsedUp(by: process)
        }
        if isUsedUp { isSlow.store(true, ordering: .relaxed) }
    }
}

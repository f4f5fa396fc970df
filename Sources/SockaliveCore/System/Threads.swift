import CSockalive
import Glibc
import SystemPackage

/// Runs `body` on a new thread and waits for it. The end of the thread releases what belongs to it: the kernel
/// detaches a tracee that never stopped (state D; exit_ptrace), and the thread's network namespace is left.
func onOwnThread<Value>(_ body: () throws -> Value) throws -> Value {
    var result: Result<Value, any Error>?
    func run() {
        result = Result(catching: body)
    }
    let status = withoutActuallyEscaping(run) { escapingRun in
        var work = escapingRun
        return withUnsafeMutablePointer(to: &work) { runAsThread($0) }
    }
    guard status == 0, let result else { throw Errno(rawValue: status) }
    return try result.get()
}

private func runAsThread(_ work: UnsafeMutablePointer<() -> Void>) -> Int32 {
    var thread = pthread_t()
    let status = pthread_create(
        &thread, nil,
        { work in
            work!.assumingMemoryBound(to: (() -> Void).self).pointee()
            return nil
        }, work)
    return status == 0 ? pthread_join(thread, nil) : status
}

/// Starts threads that share work, each on a processor of its own if that is possible. The caller only waits for them.
///
/// A worker is the child of a fork(2), and its main thread must not run Swift beside another thread. The runtime's locks
/// are PI futexes, which name their owner: that of each `static let` (include/swift/Threading/Impl/Linux/ulock.h), and
/// `Mutex`. The runtime asks for the number of a thread once, and the main thread has another one since the fork. So a
/// thread that waits for such a lock of the main thread's is never woken (futex(2), FUTEX_UNLOCK_PI: EPERM).
///
/// - Returns: as many as can be had.
func startThreads(
    _ count: Int, _ argument: UnsafeMutableRawPointer,
    _ body: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer?
) -> [pthread_t] {
    (0..<count).compactMap { number in
        var thread = pthread_t()
        // The last one may have the caller's processor, for the caller sleeps from then on.
        let status =
            number == count - 1
            ? pthread_create(&thread, nil, body, argument) : sockalive_start_on_other_cpu(&thread, body, argument)
        return status == 0 ? thread : nil
    }
}

/// A value that one thread at a time may touch. Unlike `Mutex` it may be used by any thread after a fork
/// (``startThreads(_:_:_:)``).
final class Locked<Value>: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private var value: Value

    init(_ value: Value) {
        self.value = value
        mutex.initialize(to: pthread_mutex_t())
        // Whoever waits spins for a moment before it sleeps (glibc, nptl/pthread_mutex_lock.c): as a rule the mutex is
        // let go sooner than a thread that sleeps could be woken. Of 18,000 sockets, 2,800 futex(2) calls become 400.
        var attributes = pthread_mutexattr_t()
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_settype(&attributes, Int32(PTHREAD_MUTEX_ADAPTIVE_NP))
        pthread_mutex_init(mutex, &attributes)
        pthread_mutexattr_destroy(&attributes)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    func withLock<Result, Failure: Error>(_ body: (inout Value) throws(Failure) -> Result) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&value)
    }
}

/// Runs `body` while terminal signals cannot stop this process. Otherwise a held target would stand still for as long
/// as this process is stopped. A SIGTSTP, SIGTTIN or SIGTTOU that comes meanwhile takes effect afterwards. SIGSTOP
/// cannot be blocked.
///
/// The mask is the calling thread's. Threads that it starts inherit the mask.
func withoutJobControlStops<Value>(_ body: () throws -> Value) rethrows -> Value {
    let blocked = sockalive_hold_job_control()
    defer { sockalive_let_job_control_stop(blocked) }
    return try body()
}

/// Kinds of namespaces that a process can create for itself.
package struct Namespaces: OptionSet, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    package static let mount = Namespaces(rawValue: UInt32(CLONE_NEWNS))
    package static let user = Namespaces(rawValue: UInt32(CLONE_NEWUSER))
    package static let pid = Namespaces(rawValue: UInt32(CLONE_NEWPID))
    package static let network = Namespaces(rawValue: UInt32(CLONE_NEWNET))

    /// Moves this process into new namespaces. With `pid`, the next child moves instead.
    ///
    /// The corresponding C function is `unshare`. `user` needs a process with one thread.
    package func enter() throws(Errno) {
        let result = sockalive_unshare(Int32(bitPattern: rawValue))
        if result < 0 { throw Errno(rawValue: -result) }
    }
}

/// Tells the kernel to kill this process as soon as its parent ends.
///
/// The corresponding C function is `prctl(PR_SET_PDEATHSIG)`. It does not notice a parent that has already ended.
package func dieWithParent() throws(Errno) {
    let result = sockalive_die_with_parent()
    if result < 0 { throw Errno(rawValue: -result) }
}

package enum ProcessStartup {
    /// The first call of `main`: undoes what startup.c did for the static program's runtime.
    package static func end() { sockalive_end_startup() }
}

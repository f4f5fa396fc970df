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

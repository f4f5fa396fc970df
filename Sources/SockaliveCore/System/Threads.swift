import CSockalive
import Glibc
import SystemPackage

/// Runs `body` on a thread of its own and waits for it. What belongs to a thread ends with it: a tracee that never
/// stops (state D) and cannot be detached is let go by the kernel (exit_ptrace), and a network namespace is left.
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

/// Runs `body` while no terminal can stop this process: a target that is held would stand still with it for as long
/// as a person likes. A SIGTSTP, SIGTTIN or SIGTTOU that comes meanwhile stops it afterwards. SIGSTOP cannot wait.
///
/// The mask is the calling thread's, and threads that it starts have it from the beginning.
func withoutJobControlStops<Value>(_ body: () throws -> Value) rethrows -> Value {
    let blocked = sockalive_hold_job_control()
    defer { sockalive_let_job_control_stop(blocked) }
    return try body()
}

/// Kinds of namespaces that a process can get for itself.
package struct Namespaces: OptionSet, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    package static let mount = Namespaces(rawValue: UInt32(CLONE_NEWNS))
    package static let user = Namespaces(rawValue: UInt32(CLONE_NEWUSER))
    package static let pid = Namespaces(rawValue: UInt32(CLONE_NEWPID))
    package static let network = Namespaces(rawValue: UInt32(CLONE_NEWNET))

    /// Moves this process into new namespaces; with `pid` it is the next child that moves.
    ///
    /// The corresponding C function is `unshare`. `user` needs a process of one thread.
    package func enter() throws(Errno) {
        let result = sockalive_unshare(Int32(bitPattern: rawValue))
        if result < 0 { throw Errno(rawValue: -result) }
    }
}

/// Has the kernel kill this process as soon as its parent is gone.
///
/// The corresponding C function is `prctl(PR_SET_PDEATHSIG)`. A parent that is gone already is not noticed.
package func dieWithParent() throws(Errno) {
    let result = sockalive_die_with_parent()
    if result < 0 { throw Errno(rawValue: -result) }
}

package enum ProcessStartup {
    /// The first call of `main`: takes back what the static program's runtime was told before it (startup.c).
    package static func end() { sockalive_end_startup() }
}

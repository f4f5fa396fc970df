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

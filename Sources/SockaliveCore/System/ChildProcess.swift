import Glibc
import SystemPackage

/// A process that this one started.
package struct ChildProcess {
    package let pid: pid_t

    /// How a process ended.
    package enum End: Equatable, CustomStringConvertible {
        case exited(Int32)
        case killed(signal: Int32)

        package var description: String {
            switch self {
            case .exited(let code): "ended with exit code \(code)"
            case .killed(let signal): "was killed by signal \(signal)"
            }
        }

        /// The low seven bits are the signal, the next byte is the exit code (the macros of wait(2)).
        init(status: Int32) {
            let signal = status & 0x7f
            self = signal == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: signal)
        }
    }

    /// Starts `program`. `descriptors` maps the child's numbers to ours. The child also inherits every other descriptor
    /// that is not close-on-exec.
    ///
    /// The corresponding C function is `posix_spawn`.
    package static func spawn(
        _ program: String, _ arguments: [String], descriptors: [(theirs: Int32, ours: FileDescriptor)] = []
    ) throws(ChildProcessError) -> ChildProcess {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for (theirs, ours) in descriptors {
            posix_spawn_file_actions_adddup2(&actions, ours.rawValue, theirs)
        }
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for argument in argv { free(argument) } }
        var pid: pid_t = 0
        let error = posix_spawn(&pid, program, &actions, nil, &argv, environ)
        guard error == 0 else { throw ChildProcessError("cannot start \(program)", Errno(rawValue: error)) }
        return ChildProcess(pid: pid)
    }

    /// Starts this same program again; `name` becomes its argument zero.
    package static func spawnSelf(
        as name: String = "sockalive", _ arguments: [String],
        descriptors: [(theirs: Int32, ours: FileDescriptor)] = []
    ) throws(ChildProcessError) -> ChildProcess {
        try spawn("/proc/self/exe", [name] + arguments, descriptors: descriptors)
    }

    /// Waits until the process ends. The corresponding C function is `waitpid`.
    package func wait() -> End {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return End(status: status)
    }

    /// How the process ended, or nil while it runs.
    package func poll() -> End? {
        var status: Int32 = 0
        return waitpid(pid, &status, WNOHANG) == pid ? End(status: status) : nil
    }

    /// Whether a signal has stopped it, since the last time that this was asked.
    var isStopped: Bool {
        // Its end is left for ``poll()`` (waitid(2), WNOWAIT).
        var info = siginfo_t()
        let options = WSTOPPED | WEXITED | WNOHANG | WNOWAIT
        guard waitid(P_PID, id_t(pid), &info, options) == 0 else { return true }
        return info.si_signo != 0
    }

    package func kill() {
        _ = Glibc.kill(pid, SIGKILL)
    }
}

/// A child process could not be started, or the channel to it failed.
package struct ChildProcessError: Error, CustomStringConvertible {
    package let description: String

    init(_ action: String, _ error: Errno) {
        description = "\(action): \(error)"
    }
}

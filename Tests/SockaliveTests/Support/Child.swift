import Foundation
import Glibc
import Synchronization

/// A process that a test started. It ends with its owner.
final class Child {
    let pid: pid_t
    let input: PipeEnd
    let output: PipeEnd
    let errors: PipeEnd
    private var status: Int32?

    /// The standard output of the child.
    enum Output {
        case pipe
        case closed
        /// A pipe without a reader.
        case broken
    }

    /// - Parameter arguments: the first is a path, or a name to find in PATH.
    init(_ arguments: [String], environment: [String: String]? = nil, output kind: Output = .pipe) throws {
        _ = Self.ignoresBrokenPipes
        (pid, input, output, errors) = try Self.oneAtATime.withLock { _ in
            try Self.start(arguments, environment ?? ProcessInfo.processInfo.environment, kind)
        }
    }

    deinit {
        if status == nil { kill() }
    }

    private static let oneAtATime = Mutex(())

    private static func start(
        _ arguments: [String], _ environment: [String: String], _ kind: Output
    ) throws -> (pid_t, PipeEnd, PipeEnd, PipeEnd) {
        let (inputReading, inputWriting) = PipeEnd.pair()
        let (outputReading, outputWriting) = PipeEnd.pair()
        let (errorsReading, errorsWriting) = PipeEnd.pair()
        if case .broken = kind { outputReading.close() }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, inputReading.descriptor, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, errorsWriting.descriptor, STDERR_FILENO)
        if case .closed = kind {
            posix_spawn_file_actions_addclose(&actions, STDOUT_FILENO)
        } else {
            posix_spawn_file_actions_adddup2(&actions, outputWriting.descriptor, STDOUT_FILENO)
        }
        let pid = try spawn(arguments, environment, &actions)
        for end in [inputReading, outputWriting, errorsWriting] { end.close() }
        return (pid, inputWriting, outputReading, errorsReading)
    }

    /// A write to a child that has ended must not end the test run.
    private static let ignoresBrokenPipes: Void = { _ = signal(SIGPIPE, SIG_IGN) }()

    private static func spawn(
        _ arguments: [String], _ environment: [String: String], _ actions: inout posix_spawn_file_actions_t
    ) throws -> pid_t {
        // The child must have the default action for SIGPIPE, as every program has.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var defaults = sigset_t()
        sigemptyset(&defaults)
        sigaddset(&defaults, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        // A thread of the test run may block signals, and the child would inherit its mask.
        var mask = sigset_t()
        sigemptyset(&mask)
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

        var words = arguments.map { strdup($0) } + [nil]
        var variables = environment.map { strdup("\($0)=\($1)") } + [nil]
        defer { for text in words + variables { free(text) } }
        var pid: pid_t = 0
        let error = posix_spawnp(&pid, words[0]!, &actions, &attributes, &words, &variables)
        guard error == 0 else { throw CannotStart(program: arguments[0], reason: String(cString: strerror(error))) }
        return pid
    }

    struct CannotStart: Error {
        let program: String
        let reason: String
    }

    func kill() {
        Glibc.kill(pid, SIGKILL)
        wait()
    }

    /// Waits for the end. Returns the exit code, or 128 plus the signal.
    @discardableResult
    func wait() -> Int32 {
        if let status { return status }
        var raw: Int32 = 0
        while waitpid(pid, &raw, 0) < 0 && errno == EINTR {}
        let result = raw & 0x7f == 0 ? raw >> 8 & 0xff : 128 + raw & 0x7f
        status = result
        return result
    }
}

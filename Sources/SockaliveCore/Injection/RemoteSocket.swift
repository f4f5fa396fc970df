import CSockalive
import SystemPackage

/// A socket reached inside the process that owns it: one thread of that process is held still by
/// ptrace(2), and getsockopt and setsockopt are called by it. Release is certain: at the latest when
/// the value goes away.
struct RemoteSocket: ~Copyable, SocketOptions {
    /// Why a process could not be held, or a remote call not made.
    struct Refusal: Error {
        let stage: sockalive_stage
        let errno: Errno
    }

    /// Longer than any thread takes to reach its next stop, unless it sleeps uninterruptibly.
    private static let stopTimeoutMilliseconds: Int32 = 1000

    private let tracee: OpaquePointer
    private var hold: sockalive_hold

    /// - Throws: ``Refusal``; its stage is DESCRIPTOR where another file stands under the number by now.
    init(_ target: RemoteTarget) throws(Refusal) {
        var tracee: OpaquePointer?
        var hold = sockalive_hold()
        let status = target.withDescription { sockalive_hold($0, Self.stopTimeoutMilliseconds, &tracee, &hold) }
        guard status == 0, let tracee else { throw Refusal(stage: hold.stage, errno: Errno(rawValue: -status)) }
        self.tracee = tracee
        self.hold = hold
    }

    /// The target recovers by itself should this process be killed while it holds it.
    var isCrashSafe: Bool { hold.crash_safe }

    /// Lets the thread go on; answers for how long it stood still, in microseconds.
    consuming func release() -> Int {
        sockalive_release(tracee, &hold)
        let microseconds = Int((hold.paused_ns + 500) / 1000)
        discard self
        return microseconds
    }

    deinit {
        var hold = hold
        sockalive_release(tracee, &hold)
    }

    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int {
        var length = UInt32(min(value.count, Int(SOCKALIVE_OPTION_MAX)))
        try check(sockalive_remote_option(tracee, false, level, name, value.baseAddress, &length, &hold))
        return Int(length)
    }

    mutating func exchange(_ options: inout [OptionExchange]) throws {
        var exchanged = options.map {
            sockalive_option(
                level: $0.level, name: $0.name, set: $0.newValue != nil, value: $0.newValue ?? 0, done: false)
        }
        try check(sockalive_remote_options(tracee, &exchanged, exchanged.count, &hold))
        for index in options.indices {
            options[index].value = exchanged[index].value
            if !exchanged[index].done { try exchangeAlone(&options[index]) }
        }
    }

    private mutating func exchangeAlone(_ option: inout OptionExchange) throws {
        do {
            var length = UInt32(MemoryLayout<Int32>.size)
            if var newValue = option.newValue {
                try check(sockalive_remote_option(tracee, true, option.level, option.name, &newValue, &length, &hold))
            }
            try check(sockalive_remote_option(tracee, false, option.level, option.name, &option.value, &length, &hold))
        } catch let error as Errno {
            option.error = error
        }
    }

    private func check(_ status: Int32) throws {
        guard status < 0 else { return }
        if hold.stage == SOCKALIVE_STAGE_NONE { throw Errno(rawValue: -status) }
        throw Refusal(stage: hold.stage, errno: Errno(rawValue: -status))
    }
}

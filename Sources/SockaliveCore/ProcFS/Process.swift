import CSockalive
import Glibc
import SystemPackage

/// The fields of `/proc/PID/status` and `/proc/PID/task/TID/status` that are needed here (proc_pid_status(5)).
/// Pure: bytes in, values out.
package struct ProcessStatus: Equatable, Sendable {
    /// Real, effective and saved user or group (credentials(7)).
    package struct IDs: Equatable, Sendable {
        package let real, effective, saved: UInt32

        var all: [UInt32] { [real, effective, saved] }

        /// Whether all three are `id`. A set-user-ID program has the user who started it as its real user.
        package func areAll(_ id: UInt32) -> Bool { real == id && effective == id && saved == id }

        /// The ID that all three have; nil if they differ.
        package var common: UInt32? { areAll(real) ? real : nil }
    }

    package private(set) var users = IDs(real: .max, effective: .max, saved: .max)
    private(set) var groups = IDs(real: .max, effective: .max, saved: .max)
    private(set) var supplementaryGroups: [UInt32] = []
    /// nil if the text does not tell.
    private(set) var effectiveCapabilities: Capabilities?
    private(set) var permittedCapabilities: Capabilities?
    /// The process that traces this one; 0 for none.
    package private(set) var tracer: Int32 = 0
    /// 0 none, 1 strict, 2 filter.
    package private(set) var seccomp = 0
    /// Signals that are blocked or caught: bit n - 1 is signal n.
    private(set) var handledSignals: UInt64 = 0
    /// Signals that are blocked; nil if the text does not tell.
    private(set) var blockedSignals: UInt64?
    /// Slots in the descriptor table that the kernel has allocated.
    private(set) var descriptorTableSize: Int?
    /// The kernel keeps a second copy of each return address, and a `ret` to another address fails.
    private(set) var hasShadowStack = false
    /// The thread's number in its own PID namespace (Linux 4.1).
    private(set) var ownNumber: Int32?
    /// The process that it is a thread of.
    private(set) var threadGroup: Int32?

    /// The effective user, whose rights the process acts with.
    package var uid: UInt32 { users.effective }

    /// A process writes its own name into the first line. The kernel escapes line ends there (fs/proc/array.c,
    /// proc_task_name), so no name can forge another line.
    ///
    /// nil if the text does not tell the owner.
    package init?(_ bytes: some BidirectionalCollection<UInt8>) {
        var hasUsers = false
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let words = line.split { $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: " ") }
            guard let name = words.first else { continue }
            let values = words.dropFirst()
            switch String(decoding: name.prefix(32), as: UTF8.self) {
            case "Uid:":
                guard let ids = IDs(values) else { return nil }
                users = ids
                hasUsers = true
            case "Gid:": groups = IDs(values) ?? groups
            case "Groups:": supplementaryGroups = values.compactMap { $0.decimal() }
            default: read(name, values)
            }
        }
        if !hasUsers { return nil }
    }

    /// A number that cannot be parsed counts as the more dangerous value.
    private mutating func read<Word: BidirectionalCollection<UInt8>>(_ name: Word, _ values: ArraySlice<Word>) {
        guard let first = values.first, let last = values.last else { return }
        switch String(decoding: name.prefix(32), as: UTF8.self) {
        case "CapEff:": effectiveCapabilities = first.hexadecimal().map(Capabilities.init)
        case "CapPrm:": permittedCapabilities = first.hexadecimal().map(Capabilities.init)
        case "TracerPid:": tracer = first.decimal() ?? 0
        case "Seccomp:": seccomp = first.decimal() ?? 1
        case "SigBlk:":
            blockedSignals = first.hexadecimal()
            handledSignals |= blockedSignals ?? .max
        case "SigCgt:": handledSignals |= first.hexadecimal() ?? .max
        case "FDSize:": descriptorTableSize = first.decimal()
        case "x86_Thread_features:": hasShadowStack = values.contains { $0.elementsEqual("shstk".utf8) }
        // One for each nested namespace; the innermost is the last.
        case "Tgid:": threadGroup = first.decimal()
        case "NSpid:": ownNumber = last.decimal()
        default: break
        }
    }
}

extension ProcessStatus.IDs {
    /// Real, effective and saved. The fourth, for the file system, is ignored.
    fileprivate init?<Word: Sequence<UInt8>>(_ values: ArraySlice<Word>) {
        let ids = values.prefix(3).compactMap { $0.decimal(UInt32.self) }
        guard ids.count == 3 else { return nil }
        self.init(real: ids[0], effective: ids[1], saved: ids[2])
    }
}

/// The fields of `/proc/PID/stat` that are needed here (proc_pid_stat(5)). Pure: bytes in, values out.
package struct ProcessStat: Equatable, Sendable {
    package let name: UntrustedText
    /// `R`, `S`, `D`, `Z`, `T` (stopped), `t` (traced) …
    package let state: Character
    /// The parent process; 0 for none that can be seen.
    let parent: Int32
    /// Start time in clock ticks since boot. PID and start time together identify a process.
    package let startTime: UInt64
    /// The address at which the program's first stack begins, which the kernel gave it. nil if the text does not tell:
    /// only who may read the process's memory sees it.
    let startOfStack: UInt64?
    /// How a stopped thread was stopped, or how a dead one ended, as wait4(2) would return it. nil if the text does not
    /// tell (Linux 3.5; same right).
    let exitCode: Int32?

    /// The name may contain spaces, brackets and line ends. It ends at the *last* `)`.
    package init?(_ bytes: some BidirectionalCollection<UInt8>) {
        guard let open = bytes.firstIndex(of: UInt8(ascii: "(")),
            let close = bytes.lastIndex(of: UInt8(ascii: ")")), open < close
        else { return nil }
        name = UntrustedText(bytes[bytes.index(after: open)..<close])
        let fields = bytes[bytes.index(after: close)...].split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }
        // Field 3 is the state, field 22 the start time, field 28 the start of the stack, field 52 the exit code.
        guard fields.count > 19, let state = fields[0].first, fields[0].count == 1,
            let startTime = fields[19].decimal(UInt64.self)
        else { return nil }
        parent = fields[1].decimal() ?? 0
        self.state = Character(UnicodeScalar(state))
        self.startTime = startTime
        startOfStack = fields.count > 25 ? fields[25].decimal(UInt64.self).flatMap { $0 == 0 ? nil : $0 } : nil
        exitCode = fields.count > 49 ? fields[49].decimal(Int32.self).flatMap { $0 == 0 ? nil : $0 } : nil
    }
}

/// A handle that detects the reuse of a PID. It is a pidfd, opened before anything about the process is read in
/// `/proc`; on kernels before 5.3 it is the start time.
///
/// The kernel does not reuse the PID while the process lives. So if ``isAlive`` is true later, everything that was
/// read since the handle was opened belongs to this one process.
final class ProcessHandle: Sendable {
    let pid: Int32
    /// nil if the kernel has no pidfd_open, if a filter hides it, or if no descriptor is free.
    let descriptor: Int32?
    /// Why there is no descriptor; nil if there is one.
    let pidfdError: Errno?
    /// No descriptor was free, not even to look whether the process is there.
    let isUnknown: Bool
    private let startTime: UInt64?

    /// nil if the process is gone.
    init?(pid: Int32, procfs: ProcFS) {
        self.pid = pid
        WorkerProgress.enter(.identity, pid)
        let pidfd = procfs.isOwn ? sockalive_pidfd_open(pid) : -ENOSYS
        descriptor = pidfd >= 0 ? pidfd : nil
        pidfdError = pidfd >= 0 ? nil : Errno(rawValue: -pidfd)
        startTime = pidfd >= 0 ? nil : Self.startTime(of: pid, procfs)
        // Without a free descriptor nothing is known about it: that is not "gone".
        isUnknown = startTime == nil && (pidfdError?.isOfOpenFiles ?? false)
        if pidfd == -ESRCH || (pidfd < 0 && startTime == nil && !isUnknown) { return nil }
    }

    deinit {
        if let descriptor { close(descriptor) }
    }

    /// Whether this same process still lives.
    func isAlive(_ procfs: ProcFS) -> Bool {
        guard let descriptor else { return Self.startTime(of: pid, procfs) == startTime }
        // A pidfd is readable as soon as the whole process has exited (pidfd_open(2)).
        var event = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&event, 1, 0) == 0
    }

    private static func startTime(of pid: Int32, _ procfs: ProcFS) -> UInt64? {
        (try? procfs.read("\(pid)/stat") { ProcessStat($0) })??.startTime
    }
}

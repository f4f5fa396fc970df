/// What `/proc/PID/task/TID/status` says (proc_pid_status(5)) that matters to a remote call. Pure.
struct ThreadStatus: Equatable {
    /// 0 none, 1 strict, 2 filter.
    private(set) var seccomp = 0
    /// Signals that are blocked or caught: bit n - 1 is signal n.
    private(set) var handledSignals: UInt64 = 0
    /// Slots in the descriptor table that the kernel has allocated.
    private(set) var descriptorTableSize = 0
    /// The kernel keeps a second copy of each return address, and takes no `ret` that disagrees.
    private(set) var hasShadowStack = false
    /// The thread's number in its own PID namespace.
    private(set) var ownNumber: Int32?

    /// A line end in the process's own name is escaped there (fs/proc/array.c, proc_task_name).
    init(_ bytes: UnsafeBufferPointer<UInt8>) {
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let words = line.split { $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: " ") }
            guard words.count >= 2 else { continue }
            switch String(decoding: words[0].prefix(32), as: UTF8.self) {
            case "Seccomp:": seccomp = words[1].decimal() ?? 1
            case "SigBlk:", "SigCgt:": handledSignals |= words[1].hexadecimal() ?? .max
            case "FDSize:": descriptorTableSize = words[1].decimal() ?? 0
            case "x86_Thread_features:": hasShadowStack = words.contains { $0.elementsEqual("shstk".utf8) }
            // One for each nested namespace, the innermost last.
            case "NSpid:": ownNumber = words[words.count - 1].decimal()
            default: break
            }
        }
    }
}

/// A call of a worker that may never return, because a target, its files or its sockets decide about that.
package enum WorkerStep: UInt8, Sendable, CaseIterable {
    case none
    /// Between two sockets, or asleep until the next look.
    case waiting
    case processNames, user, identity, namespace, executable, descriptors, threads
    case socketTable
    case borrow, options, close
    case inspect, seize, stop, memory
    case helper
    case cgroup, arguments, containerNames
    /// Only shown: nothing depends on the answer.
    case details
    /// The main thread waits for others, each of which says where it is.
    case sharedSockets

    /// What the worker waits for, in words.
    ///
    /// - Parameter pid: 0 for no process in particular.
    package func words(_ pid: Int32) -> String {
        if pid == 0 && [.user, .identity, .namespace, .executable, .descriptors].contains(self) {
            return "a file of a process in /proc"
        }
        return switch self {
        case .none, .waiting, .sharedSockets: "its own work"
        case .processNames: "the names in /proc"
        case .user: "/proc/\(pid)/status"
        case .identity: "/proc/\(pid)/stat"
        case .namespace: "the link /proc/\(pid)/ns/net"
        case .executable: "the file behind /proc/\(pid)/exe"
        case .descriptors: "the links in /proc/\(pid)/fd"
        case .threads: "kcmp(2) of its threads"
        case .socketTable: "the kernel's socket table (sock_diag)"
        case .borrow: "pidfd_getfd(2)"
        case .options: "getsockopt(2) or setsockopt(2), which wait for the socket's lock"
        case .close: "close(2) of the borrowed descriptor"
        case .inspect: "its memory map or its program file"
        case .seize: "ptrace(2), PTRACE_SEIZE"
        case .stop: "the stop of a thread"
        case .memory: "a page of its memory"
        case .helper: "a helper process with the rights of its user"
        case .cgroup: "/proc/\(pid)/cgroup"
        case .arguments: "the arguments in /proc/\(pid)/cmdline"
        case .containerNames: "a file with the name of its container"
        case .details: "its command line, or a file with the name of its container"
        }
    }

    /// Whether the call is about one socket; the process itself could be looked at.
    package var isAboutSocket: Bool {
        switch self {
        case .borrow, .options, .close, .inspect, .seize, .stop, .memory, .helper: true
        default: false
        }
    }

    /// The main thread waits for threads that work at the same time.
    var isOfThreads: Bool { self == .processNames || self == .sharedSockets }

    /// Whether the call waits for the lock of the socket, so that every other holder of it waits, too.
    package var locksSocket: Bool { self == .options || self == .close }
}

/// Where a worker is.
package struct WorkerPosition: Equatable, Sendable {
    package let step: WorkerStep
    /// 0: no process in particular.
    package let pid: Int32
    /// 0: no socket in particular.
    package let inode: UInt64
    /// The processes whose links the threads of a scan read.
    package let scanned: [Int32]

    package init(step: WorkerStep, pid: Int32 = 0, inode: UInt64 = 0, scanned: [Int32] = []) {
        self.step = step
        self.pid = pid
        self.inode = inode
        self.scanned = scanned
    }
}

import Glibc
import SystemPackage

/// Looks at connections while they are asked: through the kernel's sock_diag, which touches neither process nor
/// socket. Where that is not to be had, through the owner again, as the settings are.
final class PulseReader {
    private let procfs: ProcFS
    private let reach: SocketReach
    private let ownNamespace: NetworkNamespace?
    /// One for each network namespace, by its inode; nil where there is none to be had.
    private var windows: [UInt64?: Window?] = [:]
    private var hasTouched = false

    init(procfs: ProcFS, reach: SocketReach) {
        self.procfs = procfs
        self.reach = reach
        ownNamespace = NetworkNamespaces(procfs: procfs).own
    }

    func pulse(of socket: DiscoveredSocket) throws(SocketFailure) -> SocketReach.Reached<Pulse> {
        if let pulse = window(to: socket.process)?.pulse(of: socket.row) {
            return SocketReach.Reached(outcome: pulse, method: reach.method, pausedMicroseconds: 0)
        }
        hasTouched = true
        return try reach.apply(ProbeLook(), to: socket)
    }

    /// How long to leave the connections alone when their probes left so many milliseconds ago.
    /// A look by ptrace stops the target, so there are few of them.
    func gap(after elapsed: Double) -> Double {
        hasTouched && reach.method == .ptrace ? min(500, max(20, elapsed)) : min(20, max(0.3, elapsed / 5))
    }

    private func window(to process: ProcessInfo) -> Window? {
        let namespace = process.networkNamespace
        if let known = windows[namespace] { return known }
        let window = try? Window(diagSocket(of: process))
        windows.updateValue(window, forKey: namespace)
        return window
    }

    private func diagSocket(of process: ProcessInfo) throws -> SockDiagSocket {
        guard let namespace = process.networkNamespace else { throw Errno.noSuchProcess }
        if ownNamespace == .inode(namespace) { return try SockDiagSocket() }
        let file = openat(procfs.root.rawValue, "\(process.pid)/ns/net", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        defer { close(file) }
        // The number may be another process's by now.
        var status = stat()
        guard fstat(file, &status) == 0, UInt64(status.st_ino) == namespace else { throw Errno.noSuchProcess }
        return try SockDiagSocket(namespace: file)
    }

    private final class Window {
        private var diag: SockDiagSocket

        init(_ diag: consuming SockDiagSocket) {
            self.diag = diag
        }

        func pulse(of row: SocketRow) -> Pulse? {
            try? diag.pulse(of: row)
        }
    }
}

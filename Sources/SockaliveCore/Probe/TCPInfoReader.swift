/// Looks at connections while they are asked: through the kernel's sock_diag, which touches neither process nor
/// socket. Where that is not to be had, through the owner again, as the settings are.
final class TCPInfoReader {
    private let access: SocketAccess
    private let namespaces: NetworkNamespaces
    /// One for each network namespace, by its inode; nil where there is none to be had.
    private var connections: [UInt64?: DiagConnection?] = [:]
    private var hasTouched = false

    init(procfs: ProcFS, access: SocketAccess) {
        self.access = access
        namespaces = NetworkNamespaces(procfs: procfs)
    }

    func tcpInfo(of socket: DiscoveredSocket) throws(SocketFailure) -> AccessResult<TCPInfo> {
        if let tcpInfo = connection(to: socket.process)?.tcpInfo(of: socket.row) {
            return AccessResult(outcome: tcpInfo, method: access.method, pausedMicroseconds: 0)
        }
        hasTouched = true
        return try access.apply(ProbeReading(), to: socket)
    }

    /// How long to leave the connections alone when their probes left so many milliseconds ago.
    /// A look by ptrace stops the target, so there are few of them.
    func gap(after elapsed: Double) -> Double {
        hasTouched && access.method == .ptrace ? min(500, max(20, elapsed)) : min(20, max(0.3, elapsed / 5))
    }

    private func connection(to process: ProcessIdentity) -> DiagConnection? {
        let namespace = process.networkNamespace
        if let known = connections[namespace] { return known }
        let connection = namespace.flatMap {
            try? DiagConnection(namespaces.diagSocket(in: .inode($0), seenBy: [process.pid]))
        }
        connections.updateValue(connection, forKey: namespace)
        return connection
    }

    private final class DiagConnection {
        private var diag: SockDiagSocket

        init(_ diag: consuming SockDiagSocket) {
            self.diag = diag
        }

        func tcpInfo(of row: SocketRow) -> TCPInfo? {
            try? diag.tcpInfo(of: row)
        }
    }
}

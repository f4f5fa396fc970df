import Glibc

@testable import SockaliveCore

/// dup2(2) with close-on-exec: a child of another test, whose every socket is set, must not inherit the copy. The
/// module of glibc hides dup3(2).
func duplicate(_ descriptor: Int32, as number: Int32) -> Int32 {
    typealias Function = @convention(c) (Int32, Int32, Int32) -> Int32
    return unsafeBitCast(dlsym(nil, "dup3"), to: Function.self)(descriptor, number, O_CLOEXEC)
}

/// Parses a table's text as discovery does.
func socketRows(
    _ text: String, family: IPAddress.Family = .ipv4, ports: Set<UInt16>? = [5633], listeners: Bool = false,
    halfClosed: Bool = false
) -> [SocketRow] {
    let selection = SocketSelection(ports: ports, listeners: listeners, halfClosed: halfClosed)
    let reader = SocketTableReader(family: family, accepts: selection.accepts(state:localPort:remotePort:))
    return Array(text.utf8).withUnsafeBufferPointer { reader.rows(in: $0) }
}

let tableHeader =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode          \n"

extension Snapshot {
    /// Treats all of its sockets in this process, without a worker.
    func results(
        _ procfs: ProcFS, _ mode: KeepaliveRun.Mode, _ request: KeepaliveRequest = KeepaliveRequest()
    ) -> [SocketResult] {
        let access = SocketAccess(procfs: procfs, choice: .pidfd, handles: handles)
        let candidates = sockets.map { AssignedSocket(socket: $0, request: request) }
        return KeepaliveRun(mode: mode, access: access).results(for: candidates)
    }
}

extension TargetInspector {
    func target(known: SyscallGadgets?) throws(RemoteSocket.AttachError) -> RemoteTarget {
        var known = known
        return try target(known: &known)
    }
}

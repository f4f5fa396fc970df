@testable import SockaliveCore

/// Reads a table's text the way that discovery does.
func socketRows(
    _ text: String, family: IPAddress.Family = .ipv4, ports: Set<UInt16>? = [5633], listeners: Bool = false
) -> [SocketRow] {
    let selection = SocketSelection(ports: ports, listeners: listeners)
    let reader = SocketTableReader(family: family, accepts: selection.accepts(state:localPort:remotePort:))
    return Array(text.utf8).withUnsafeBufferPointer { reader.rows(in: $0) }
}

let tableHeader =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode          \n"

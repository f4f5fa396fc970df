import CSockalive
import Glibc
import SystemPackage

/// Finds sockets that are in another network namespace than their process: setns(2) moves a thread, and its sockets
/// stay where they were made. Proxies do that (haproxy's `namespace`, pasta, rootlesskit).
struct SocketsElsewhere {
    let procfs: ProcFS
    let tables: SocketTables
    let mayBorrow: Bool
    let limits: ProcessLimits
    let stopReason: () -> StopReason?

    private static let maxBorrowed = 400
    private static let maxNamespaces = 512

    /// The rows by inode.
    ///
    /// - Parameters:
    ///   - entries: descriptors that the table of the namespace does not know, of whatever kind of socket.
    ///   - known: namespaces whose tables were read.
    func rows(
        of entries: [FDScan.Entry], namespace: NetworkNamespace, known: [NetworkNamespace]
    ) throws -> FoundRows {
        guard procfs.isOwn else { return FoundRows() }
        var rest = try entries.compactMap(onlyTCP)
        if rest.isEmpty { return FoundRows() }
        let borrowed = BorrowedRows(tables: tables, namespace: namespace, limits: limits)
        if mayBorrow, rest.reduce(0, { $0 + $1.descriptors.count }) <= Self.maxBorrowed {
            if let rows = try borrowed.rows(of: rest) { return rows }
        }
        // What the namespace has at all: other ports, other peers.
        let all = SocketSelection(ports: nil, listeners: true)
        let everything = SocketTables(procfs: procfs, source: tables.source, selection: all)
        let here = try everything.rows(of: namespace, seenBy: rest.map(\.process), inodes: nil)
        // Or sockets that are newer than the table that does not know them.
        var found = FoundRows()
        for descriptor in rest.flatMap(\.descriptors) {
            for row in here[descriptor.inode] where tables.selection.accepts(wholly: row.row) { found.add(row) }
        }
        rest = rest.compactMap { $0.without(here.contains) }
        if rest.isEmpty { return found }
        let others: FoundRows
        if mayBorrow, let rows = try borrowed.rows(of: rest) {
            others = rows
        } else {
            others = try search(
                Set(rest.flatMap(\.descriptors).map(\.inode)), besides: Set(known + [namespace]),
                members: rest.map(\.process.pid))
        }
        found.add(others)
        return found
    }

    /// Sockets that are TCP, or MPTCP; in doubt they are.
    private func onlyTCP(_ entry: FDScan.Entry) throws -> FDScan.Entry? {
        if let reason = stopReason() { throw reason }
        WorkerProgress.enter(.descriptors, entry.process.pid)
        var others: Set<UInt64> = []
        for descriptor in entry.descriptors {
            let path = "/proc/\(entry.process.pid)/fd/\(descriptor.fd)"
            let isOther = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 32) { name in
                let count = sockalive_socket_protocol(path, name.baseAddress, name.count)
                return count > 0 && !name[..<count].map(UInt8.init(bitPattern:)).containsTCP
            }
            if isOther { others.insert(descriptor.inode) }
        }
        return entry.without { others.contains($0) }
    }

    /// Looks into the tables of the other namespaces that some process is in.
    ///
    /// - Parameters:
    ///   - known: namespaces whose tables were read.
    ///   - members: processes in one of them.
    private func search(
        _ inodes: Set<UInt64>, besides known: Set<NetworkNamespace>, members: [Int32]
    ) throws -> FoundRows {
        let namespaces = NetworkNamespaces(procfs: procfs)
        var seen = known
        // The link to a namespace waits for the end of an execve(2). The files of a namespace wait for nobody, so that
        // one link of each is read, and not that of each process.
        var seenFiles = Set(members.compactMap(namespaces.files))
        var found = FoundRows()
        for pid in try procfs.numbers(in: ".") where !limits.excluded.contains(pid) {
            if let reason = stopReason() { throw reason }
            guard found.inodeCount < inodes.count, seen.count < Self.maxNamespaces else { break }
            let files = namespaces.files(of: pid)
            if let files, seenFiles.contains(files) { continue }
            // If the process ends, or its number is given to another one meanwhile, the namespace is not seen yet: another
            // process may be in it.
            guard let namespace = namespaces.namespace(of: pid),
                let process = ProcessHandle(pid: pid, procfs: procfs), namespaces.files(of: pid) == files
            else { continue }
            if let files { seenFiles.insert(files) }
            guard seen.insert(namespace).inserted else { continue }
            // A namespace that may not be entered: its table is not needed for the answer about this process's own.
            if let rows = try? tables.rows(of: namespace, seenBy: [process], inodes: inodes) { found.add(rows) }
        }
        for (path, namespace) in mounted() where found.inodeCount < inodes.count && seen.insert(namespace).inserted {
            if let reason = stopReason() { throw reason }
            let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
            guard file >= 0 else { continue }
            defer { close(file) }
            var status = stat()
            guard fstat(file, &status) == 0, namespace == .inode(UInt64(status.st_ino)) else { continue }
            if let rows = try? tables.rows(of: namespace, mounted: file, inodes: inodes) { found.add(rows) }
        }
        return found
    }

    /// Network namespaces that a mount keeps, by the place of the mount (ip-netns(8), docker). No process need be in
    /// them. Other places than `/run` may lie on a file server that does not answer.
    private func mounted() -> [(path: String, namespace: NetworkNamespace)] {
        (procfs.text("self/mountinfo") ?? []).split(separator: UInt8(ascii: "\n")).compactMap { line in
            let words = line.split(separator: UInt8(ascii: " "))
            guard words.count > 4, let inode = Array(words[3]).inode(ofKind: "net") else { return nil }
            let path = words[4]
            // A place with a blank is written with an escape (proc_pid_mountinfo(5)), and cannot be opened so.
            guard path.starts(with: "/run/".utf8) || path.starts(with: "/var/run/".utf8) else { return nil }
            return (String(decoding: path, as: UTF8.self), .inode(inode))
        }
    }
}

extension [UInt8] {
    fileprivate var containsTCP: Bool { starts(with: "TCP".utf8) || starts(with: "MPTCP".utf8) }
}

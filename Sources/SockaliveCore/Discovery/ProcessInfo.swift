import Glibc
import SystemPackage

/// A process as it was found.
public struct ProcessInfo: Equatable, Sendable {
    public let pid: Int32
    public let name: ForeignText
    /// Where the executable lies, in the process's own mount namespace; nil if that may not be read.
    public let executable: ForeignText?
    /// The effective user.
    public let uid: UInt32
    /// Clock ticks since boot; with the PID it names the process for good.
    public let startTime: UInt64
    /// The inode of its network namespace; nil if that may not be read.
    public let networkNamespace: UInt64?
}

/// Finds the processes of a selection in `/proc`.
///
/// On a host with 1,000 processes nearly all the cost is one small read per process, so only
/// what is needed to turn a process down is read before it is turned down.
struct ProcessFinder {
    let procfs: ProcFS
    let selection: ProcessSelection

    func processes() throws -> [ProcessInfo] {
        let pids =
            selection.names.isEmpty && !selection.anyProcess && selection.executable == nil
            ? selection.pids.sorted() : try procfs.numbers(in: ".")
        return pids.compactMap(process)
    }

    /// The process, if it is meant and still there. All errors mean that it is neither.
    private func process(_ pid: Int32) -> ProcessInfo? {
        guard isNamed(pid), hasWantedExecutable(pid),
            let stat = try? procfs.read("\(pid)/stat", { ProcessStat($0) }),
            let status = try? procfs.read("\(pid)/status", { ProcessStatus($0) }),
            selection.uid == nil || selection.uid == status.uid
        else { return nil }
        return ProcessInfo(
            pid: pid, name: stat.name, executable: executable(pid), uid: status.uid,
            startTime: stat.startTime,
            networkNamespace: (try? procfs.link("\(pid)/ns/net"))?.inode(ofKind: "net"))
    }

    private func isNamed(_ pid: Int32) -> Bool {
        if selection.anyProcess || selection.pids.contains(pid) { return true }
        if selection.names.isEmpty { return selection.executable != nil && selection.pids.isEmpty }
        let matchesName = try? procfs.read("\(pid)/comm") { bytes in
            selection.names.contains { $0.bytes.elementsEqual(bytes.dropLast()) }
        }
        if matchesName == true { return true }
        // comm is cut at 15 bytes (TASK_COMM_LEN), and a program may change it: the file's name counts too.
        guard let base = executable(pid)?.bytes.split(separator: UInt8(ascii: "/")).last else { return false }
        return selection.names.contains { $0.bytes.elementsEqual(base) }
    }

    /// The link's text alone proves little: a process in a mount namespace of its own has whatever
    /// paths it likes. Where the path exists for us too, it must be the very same file.
    private func hasWantedExecutable(_ pid: Int32) -> Bool {
        guard let wanted = selection.executable else { return true }
        guard let link = try? procfs.link("\(pid)/exe") else { return false }
        if link.elementsEqual(wanted.utf8) {
            var status = stat()
            guard stat(wanted, &status) == 0 else { return true }
            return procfs.identity("\(pid)/exe")
                == FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        }
        // Replaced by an update while it runs.
        return Self.withoutDeletedMark(link).elementsEqual(wanted.utf8)
    }

    private func executable(_ pid: Int32) -> ForeignText? {
        (try? procfs.link("\(pid)/exe")).map { ForeignText(Self.withoutDeletedMark($0)) }
    }

    /// The kernel adds ` (deleted)` to the path of an unlinked file (fs/d_path.c).
    private static func withoutDeletedMark(_ link: [UInt8]) -> ArraySlice<UInt8> {
        let mark = " (deleted)".utf8
        return link.suffix(mark.count).elementsEqual(mark) ? link.dropLast(mark.count) : link[...]
    }
}

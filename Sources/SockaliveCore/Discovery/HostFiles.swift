import Glibc
import SystemPackage

/// Reads files of the host that others may have written: whole and bounded, without a link that leads elsewhere, and
/// without a FIFO or a device that makes the reader wait.
///
/// In a container that sees the host's processes, the host's files are those of PID 1. That takes CAP_SYS_PTRACE
/// (PTRACE_MODE_READ, proc_pid_root(5)).
final class HostFiles {
    private let root: Int32

    /// - Parameter root: another root folder, for tests.
    init?(procfs: ProcFS, root: String? = nil) {
        let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC
        if let root {
            self.root = open(root, flags)
        } else {
            guard procfs.isOwn else { return nil }
            let host = openat(procfs.root.rawValue, "1/root", flags)
            self.root = host >= 0 ? host : open("/", flags)
        }
        guard self.root >= 0 else { return nil }
    }

    deinit {
        close(root)
    }

    static let maxSize = 16 << 20
    private static let maxEntries = 20_000

    /// The content of a regular file; nil where there is none, or it is someone else's or too large.
    ///
    /// - Parameters:
    ///   - path: absolute.
    ///   - owner: whom the file has to belong to.
    func read(_ path: [UInt8], owner: UInt32, limit: Int = maxSize) -> [UInt8]? {
        guard let file = openBelow(path, O_RDONLY | O_NONBLOCK | O_NOCTTY) else { return nil }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_uid == owner,
            status.st_size <= limit
        else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(status.st_size))
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while bytes.count <= limit {
            let count = Glibc.read(file, &chunk, chunk.count)
            if count == 0 { return bytes }
            if count > 0 { bytes += chunk[..<count] } else if errno != EINTR { return nil }
        }
        return nil
    }

    func read(_ path: String, owner: UInt32, limit: Int = maxSize) -> [UInt8]? {
        read(Array(path.utf8), owner: owner, limit: limit)
    }

    /// The names in a folder that belongs to `owner`; none where there is no such folder.
    func names(in path: String, owner: UInt32) -> [[UInt8]] {
        guard let file = openBelow(Array(path.utf8), O_RDONLY | O_DIRECTORY) else { return [] }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_uid == owner else {
            close(file)
            return []
        }
        guard var entries = try? FolderEntries(file) else { return [] }
        var names: [[UInt8]] = []
        while names.count < Self.maxEntries, let (name, _) = entries.nextName() {
            if name.first != UInt8(ascii: ".") { names.append(name) }
        }
        return names
    }

    private static let maxLinks = 16

    /// Component by component. A link of root's is followed: `/var/lib/docker` often is one. Any other link is not, for
    /// its owner could lead it anywhere. Absolute links begin at the host's root.
    private func openBelow(_ path: [UInt8], _ flags: Int32) -> Int32? {
        var rest = Array(path.split(separator: UInt8(ascii: "/")).map(Array.init).reversed())
        var folder = root
        defer { if folder != root { close(folder) } }
        var links = 0
        while let component = rest.popLast() {
            guard !component.elementsEqual("..".utf8) else { return nil }
            let name = component + [0]
            let file = name.withUnsafeBytes {
                openat(
                    folder, $0.baseAddress!.assumingMemoryBound(to: CChar.self),
                    (rest.isEmpty ? flags : O_RDONLY | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC)
            }
            if file >= 0 {
                if rest.isEmpty { return file }
                if folder != root { close(folder) }
                folder = file
                continue
            }
            // ENOTDIR: a link is no folder.
            guard [ELOOP, ENOTDIR].contains(errno), links < Self.maxLinks, let target = link(name, in: folder) else {
                return nil
            }
            links += 1
            rest += target.split(separator: UInt8(ascii: "/")).map(Array.init).reversed()
            if target.first == UInt8(ascii: "/") {
                if folder != root { close(folder) }
                folder = root
            }
        }
        return nil
    }

    /// Where a link of root's leads.
    private func link(_ name: [UInt8], in folder: Int32) -> [UInt8]? {
        name.withUnsafeBytes { bytes in
            let name = bytes.baseAddress!.assumingMemoryBound(to: CChar.self)
            var status = stat()
            guard fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT == S_IFLNK,
                status.st_uid == 0
            else { return nil }
            return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { target in
                let count = readlinkat(folder, name, target.baseAddress!, target.count)
                return count > 0 ? target.prefix(count).map(UInt8.init(bitPattern:)) : nil
            }
        }
    }
}

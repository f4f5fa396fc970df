import CSockalive
import Glibc
import SystemPackage

/// The cgroup2 hierarchy, read from its mounted file system (cgroups(7)).
///
/// Users own parts of it: they make, remove and name folders there. So a path is resolved below the mount without
/// following anything, and what is attached to is the descriptor that was found.
package final class CGroupHierarchy: Sendable {
    private let mount: Int32

    /// - Throws: `noSuchFileOrDirectory`: no cgroup2 file system is mounted with its root.
    convenience init(procfs: ProcFS) throws(Errno) {
        guard let path = (try? procfs.read("self/mountinfo", { Self.mountPoint(in: Array($0)) })) ?? nil else {
            throw .noSuchFileOrDirectory
        }
        try self.init(mountedAt: path)
    }

    private init(mountedAt path: [UInt8]) throws(Errno) {
        let file = (path.map(CChar.init(bitPattern:)) + [0]).withUnsafeBufferPointer {
            open($0.baseAddress!, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        }
        guard file >= 0 else { throw Errno(rawValue: errno) }
        // Another file system may lie over the mount point.
        guard sockalive_file_system(file) == CGROUP2_SUPER_MAGIC else {
            close(file)
            throw .noSuchFileOrDirectory
        }
        mount = file
    }

    deinit {
        close(mount)
    }

    /// The first mount of the type whose root is that of the hierarchy, or of this cgroup namespace
    /// (proc_pid_mountinfo(5)). Pure.
    static func mountPoint(in mountinfo: [UInt8]) -> [UInt8]? {
        for line in mountinfo.split(separator: UInt8(ascii: "\n")) {
            // ID, parent, device, root, mount point, options, optional fields, a dash, the type.
            let fields = line.split(separator: UInt8(ascii: " "))
            guard fields.count > 5, let dash = fields.firstIndex(where: { $0.elementsEqual("-".utf8) }),
                dash + 1 < fields.count, fields[dash + 1].elementsEqual("cgroup2".utf8),
                fields[3].elementsEqual("/".utf8)
            else { continue }
            return unescaped(fields[4])
        }
        return nil
    }

    /// Blanks, tabs, line ends and backslashes are written as three octal digits (fs/proc_namespace.c, mangle).
    private static func unescaped(_ field: ArraySlice<UInt8>) -> [UInt8] {
        var (result, rest): ([UInt8], ArraySlice<UInt8>) = ([], field)
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3, digits.allSatisfy({ (0x30...0x37).contains($0) }) {
                result.append(digits.reduce(0) { $0 &* 8 &+ ($1 - 0x30) })
                rest = rest.dropFirst(3)
            } else {
                result.append(byte)
            }
        }
        return result
    }

    /// The root: of the hierarchy, or of this cgroup namespace.
    var root: CGroup {
        get throws(Errno) { try cgroup("/") }
    }

    /// - Parameter path: from the root, such as `/system.slice/agent.service`.
    func cgroup(_ path: String) throws(Errno) -> CGroup {
        let relative = path.split(separator: "/").joined(separator: "/")
        guard !path.utf8.contains(0) else { throw .invalidArgument }
        let file = sockalive_open_beneath(
            mount, relative.isEmpty ? "." : relative, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard file >= 0 else { throw Errno(rawValue: -file) }
        return try CGroup(descriptor: file, path: "/" + relative)
    }

    /// Makes a cgroup below the root.
    func make(_ name: String) throws(Errno) -> CGroup {
        guard mkdirat(mount, name, 0o755) == 0 else { throw Errno(rawValue: errno) }
        return try cgroup("/" + name)
    }

    /// The kernel refuses while processes are in it. Those that have ended may take a moment to leave.
    func remove(_ name: String) {
        for _ in 0..<100 {
            if unlinkat(mount, name, AT_REMOVEDIR) == 0 || errno != EBUSY { return }
            usleep(1000)
        }
    }

    /// A cgroup's ancestors, the nearest first. A folder is opened for each, so they are the same hierarchy's.
    func ancestors(of cgroup: CGroup) throws(Errno) -> [CGroup] {
        var components = cgroup.path.split(separator: "/")
        var result: [CGroup] = []
        while components.popLast() != nil {
            result.append(try self.cgroup("/" + components.joined(separator: "/")))
        }
        return result
    }

    /// What a walk does with a cgroup.
    enum Step {
        case take
        /// Looks at those below.
        case descend
        case skip
    }

    /// What a walk has found.
    struct Walk {
        var found: [CGroup] = []
        /// Parts that belong to users and have too many cgroups, so that not all was looked at.
        var cut: [CutPart] = []

        /// Whether a cgroup of that path may have been passed by.
        func mayHaveMissed(_ path: String) -> Bool { cut.contains { path.hasPrefix($0.path + "/") } }
    }

    /// The cgroups that are taken and have no ancestor that is. Parts that vanish meanwhile are left out; what could not
    /// be looked at for another reason is never left out in silence.
    ///
    /// What root's folders hold is looked at in any case. In a folder of a user's there may be as many as the kernel
    /// allows, so each such part has a limit, and so have all together.
    ///
    /// - Throws: `tooManyReferences` if root has too many cgroups; another `Errno` if one could not be looked at.
    func topmost(_ step: (CGroupPath) -> Step) throws(Errno) -> Walk {
        var walk = Walk()
        var waiting: [(path: String, part: CutPart?)] = [("/", nil)]
        // How many folders are known, of root and in each user's part.
        var (ofRoot, ofParts, ofUsers) = (0, [String: Int](), 0)
        while let next = waiting.popLast() {
            let step = step(CGroupPath(next.path.utf8))
            guard step != .skip, let cgroup = try present({ () throws(Errno) in try self.cgroup(next.path) }) else {
                continue
            }
            if step == .take {
                walk.found.append(cgroup)
                continue
            }
            let part = next.part ?? (cgroup.owner == 0 ? nil : CutPart(path: next.path, owner: cgroup.owner))
            let limit =
                part.map { min(Self.maxInPart - ofParts[$0.path, default: 0], Self.maxOfUsers - ofUsers) }
                ?? Self.maxCgroups - ofRoot
            guard
                let (names, isComplete) = try present({ () throws(Errno) in try cgroup.childNames(limit: limit) })
            else { continue }
            if let part {
                ofParts[part.path, default: 0] += names.count
                ofUsers += names.count
                if !isComplete && !walk.cut.contains(part) { walk.cut.append(part) }
            } else {
                guard isComplete else { throw .tooManyReferences }
                ofRoot += names.count
            }
            waiting += names.map { (next.path == "/" ? "/\($0)" : "\(next.path)/\($0)", part) }
        }
        walk.found.sort { $0.path < $1.path }
        return walk
    }

    /// nil if the cgroup is gone.
    private func present<Result>(_ look: () throws(Errno) -> Result) throws(Errno) -> Result? {
        do throws(Errno) {
            return try look()
        } catch let error where error.isOfGoneCgroup {
            return nil
        }
    }

    private static let maxCgroups = 100_000
    private static let maxInPart = 1000
    private static let maxOfUsers = 10_000
}

/// A user's part of the hierarchy that has too many cgroups.
struct CutPart: Equatable {
    let path: String
    let owner: UInt32

    var line: String {
        "user \(owner) has too many cgroups in \(UntrustedText(path).escaped): not all of them were looked at"
    }
}

/// One cgroup, held by a descriptor of its folder.
package final class CGroup: Sendable {
    let descriptor: Int32
    /// From the root of the hierarchy, or of this cgroup namespace.
    package let path: String
    /// The kernel never gives it to another cgroup (kernfs_node_id; the inode on 64-bit machines).
    let id: UInt64
    /// Whom its folder belongs to.
    let owner: UInt32

    fileprivate init(descriptor: Int32, path: String) throws(Errno) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let error = Errno(rawValue: errno)
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
        self.path = path
        id = UInt64(status.st_ino)
        owner = status.st_uid
    }

    deinit {
        close(descriptor)
    }

    /// The root of the machine's hierarchy has the number 1; that of a cgroup namespace another.
    var isMachineRoot: Bool { id == 1 }

    /// The numbers of its own processes. Those of other PID namespaces are 0. In a threaded cgroup they cannot be read,
    /// and are those of the one above (cgroups(7)).
    func processes() throws(Errno) -> [Int32] {
        let file = openat(descriptor, "cgroup.procs", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        defer { close(file) }
        // The first page is enough to find one.
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(file, &bytes, bytes.count)
        if count < 0 && errno == EOPNOTSUPP { return [] }
        guard count >= 0 else { throw Errno(rawValue: errno) }
        return bytes[..<count].split(separator: UInt8(ascii: "\n")).compactMap { $0.decimal(Int32.self) }
    }

    /// The first cgroups below, as far as they are still there.
    func children(limit: Int) throws(Errno) -> [CGroup] {
        var children: [CGroup] = []
        for name in try childNames(limit: limit).names {
            let file = sockalive_open_beneath(descriptor, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if file < 0 && Errno(rawValue: -file).isOfGoneCgroup { continue }
            guard file >= 0 else { throw Errno(rawValue: -file) }
            children.append(try CGroup(descriptor: file, path: path == "/" ? "/\(name)" : "\(path)/\(name)"))
        }
        return children
    }

    /// The names of its first folders. Names that are not UTF-8 are left out: no option can mean them.
    func childNames(limit: Int) throws(Errno) -> (names: [String], isComplete: Bool) {
        let copy = sockalive_open_beneath(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0 else { throw Errno(rawValue: -copy) }
        var entries = try FolderEntries(copy)
        var names: [String] = []
        while let (bytes, isFolder) = entries.nextName() {
            guard isFolder, let name = String(validating: bytes, as: UTF8.self) else { continue }
            guard names.count < limit else { return (names.sorted(), false) }
            names.append(name)
        }
        if let error = entries.error { throw error }
        return (names.sorted(), true)
    }
}

extension Errno {
    /// A folder of cgroups that was removed; also one that is held open (kernfs).
    var isOfGoneCgroup: Bool { self == .noSuchFileOrDirectory || self == .operationNotSupportedByDevice }
}

import Glibc
import SystemPackage

/// The cgroup file system, as far as it is mounted here: the folders of all cgroups.
///
/// A walk over some hundred folders costs less than to ask a thousand processes for their cgroup. What it finds is
/// looked up in `/proc` all the same.
package struct CGroupTree {
    /// The mount points of the hierarchies that ``CGroupPath`` knows: that of version 2, and systemd's of version 1.
    private let mounts: [String]

    /// nil if the mounts do not show all cgroups: in a cgroup namespace, or where none is mounted.
    package init?(procfs: ProcFS) {
        // PROC_CGROUP_INIT_INO of include/linux/proc_ns.h. Before Linux 4.6 there are no such namespaces.
        if let link = try? procfs.link("self/ns/cgroup"), link.inode(ofKind: "cgroup") != 0xEFFF_FFFB { return nil }
        guard procfs.isOwn, let text = procfs.text("self/mountinfo"), let own = procfs.text("self/cgroup") else {
            return nil
        }
        let found = Self.mounts(text)
        guard !found.isEmpty, found.count == Self.hierarchies(own) else { return nil }
        mounts = found
    }

    /// How many of the two hierarchies the kernel has.
    private static func hierarchies(_ text: [UInt8]) -> Int {
        text.split(separator: UInt8(ascii: "\n")).count { line in
            line.starts(with: "0::/".utf8)
                || line.split(separator: UInt8(ascii: ":"))
                    .dropFirst().first?.elementsEqual("name=systemd".utf8) ?? false
        }
    }

    /// One mount point of each hierarchy, of its root (proc_pid_mountinfo(5)).
    static func mounts(_ text: [UInt8]) -> [String] {
        var unified: String?
        var systemd: String?
        for line in text.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " "))
            guard words.count > 6, words[3].elementsEqual("/".utf8), !words[4].contains(UInt8(ascii: "\\")),
                let dash = words.firstIndex(where: { $0.elementsEqual("-".utf8) }), dash + 3 < words.count
            else { continue }
            let place = String(decoding: words[4], as: UTF8.self)
            if words[dash + 1].elementsEqual("cgroup2".utf8) { unified = place }
            let options = words[dash + 3].split(separator: UInt8(ascii: ","))
            let isSystemd = options.contains { $0.elementsEqual("name=systemd".utf8) }
            if words[dash + 1].elementsEqual("cgroup".utf8) && isSystemd { systemd = place }
        }
        return [unified, systemd].compactMap(\.self)
    }

    /// What a walk does with a cgroup.
    package enum Step {
        /// Looks at those below.
        case descend
        /// Leaves it and all below out.
        case skip
        /// Takes it and all below.
        case take
    }

    private static let maxDepth = 64
    private static let maxFolders = 20_000

    /// The processes of some cgroups, in all hierarchies.
    ///
    /// - Parameter step: asked for each cgroup, from the top down.
    /// - Returns: nil if some cgroup could not be looked at.
    package func processes(_ step: (CGroupPath) -> Step) -> Set<Int32>? {
        var found: Set<Int32> = []
        let isComplete = walk(step) { folder, _ in Self.addProcesses(of: folder, to: &found) }
        return isComplete ? found : nil
    }

    /// - Parameter taken: called with a descriptor and the path of each cgroup that is taken, those below one included;
    ///   false if it could not be looked at.
    /// - Returns: false if some cgroup could not be looked at.
    func walk(_ step: (CGroupPath) -> Step, taken: (Int32, [UInt8]) -> Bool) -> Bool {
        for mount in mounts {
            let root = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard root >= 0 else { return false }
            defer { close(root) }
            var walker = Walker()
            guard walker.enter(root, Place(), step, taken) else { return false }
        }
        return true
    }

    private struct Place {
        var path: [UInt8] = []
        var depth = 0
        var isTaken = false

        func below(_ name: [UInt8]) -> Place {
            Place(path: path + [UInt8(ascii: "/")] + name, depth: depth + 1, isTaken: isTaken)
        }
    }

    private struct Walker {
        private var folders = 0

        mutating func enter(
            _ folder: Int32, _ place: Place, _ step: (CGroupPath) -> Step, _ taken: (Int32, [UInt8]) -> Bool
        ) -> Bool {
            folders += 1
            guard place.depth < maxDepth, folders < maxFolders else { return false }
            if place.isTaken && !taken(folder, place.path) { return false }
            guard let names = CGroupTree.folders(in: folder) else { return false }
            for name in names {
                var below = place.below(name)
                if !below.isTaken {
                    let step = step(CGroupPath(below.path))
                    if step == .skip { continue }
                    below.isTaken = step == .take
                }
                let file = (name + [0]).withUnsafeBytes {
                    openat(
                        folder, $0.baseAddress!.assumingMemoryBound(to: CChar.self),
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                }
                // Removed since.
                if file < 0 && errno == ENOENT { continue }
                guard file >= 0 else { return false }
                defer { close(file) }
                guard enter(file, below, step, taken) else { return false }
            }
            return true
        }
    }

    private static func folders(in folder: Int32) -> [[UInt8]]? {
        // A kernfs folder has a link for each folder below, and two more.
        var status = stat()
        if fstat(folder, &status) == 0, status.st_nlink == 2 { return [] }
        let file = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard file >= 0, var entries = try? FolderEntries(file) else { return nil }
        var names: [[UInt8]] = []
        while let (name, isFolder) = entries.nextName() { if isFolder { names.append(name) } }
        return entries.error == nil ? names : nil
    }

    /// Those of other PID namespaces are listed as 0.
    private static func addProcesses(of folder: Int32, to found: inout Set<Int32>) -> Bool {
        let file = openat(folder, "cgroup.procs", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return errno == ENOENT }
        defer { close(file) }
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 14)
        while true {
            let count = read(file, &chunk, chunk.count)
            if count == 0 { break }
            if count > 0 {
                text += chunk[..<count]
            } else if errno != EINTR {
                // A threaded cgroup: the processes are in the one above (cgroups(7)). Or it is gone.
                if errno == EOPNOTSUPP || errno == ENODEV { break }
                return false
            }
        }
        found.formUnion(text.split(separator: UInt8(ascii: "\n")).compactMap { $0.decimal(Int32.self) })
        return true
    }

    /// The user whom the folder of a cgroup belongs to; nil if that cannot be told.
    package func owner(of path: UntrustedText) -> UInt32? {
        for mount in mounts {
            var status = stat()
            let name = Array(mount.utf8) + path.bytes + [0]
            let result = name.withUnsafeBytes {
                lstat($0.baseAddress!.assumingMemoryBound(to: CChar.self), &status)
            }
            if result == 0 { return status.st_uid }
        }
        return nil
    }
}

import CSockalive
import Glibc
import SystemPackage

/// A folder of root's alone in the BPF file system. What is pinned there stays until it is removed, or until the machine
/// ends.
///
/// Everybody may make names in a BPF file system that was mounted without options. So the folder is opened without
/// following a link, and is refused if it is another user's. Names in it are reached through the open folder.
final class GuardFolder: Sendable {
    let descriptor: Int32

    private init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    static let mountPoint = "/sys/fs/bpf"
    static let name = "sockalive"

    /// - Parameter makes: mounts the file system and makes the folder where they are missing.
    /// - Returns: nil if something is missing and is not made.
    static func open(makes: Bool) throws(GuardFailure) -> GuardFolder? {
        guard let mount = try openMount(makes: makes) else { return nil }
        defer { close(mount) }
        if makes && mkdirat(mount, name, 0o700) < 0 && errno != EEXIST {
            throw failure("\(mountPoint)/\(name) cannot be made", Errno(rawValue: errno))
        }
        let file = openat(mount, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard file >= 0 else {
            let error = Errno(rawValue: errno)
            if error == .noSuchFileOrDirectory && !makes { return nil }
            throw failure("\(mountPoint)/\(name) cannot be opened", error)
        }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_uid == geteuid(), status.st_mode & 0o077 == 0 else {
            close(file)
            throw GuardFailure(
                .other, "\(mountPoint)/\(name) belongs to another user, or others may enter it: it is not used",
                remedy: "look who made it, and remove it")
        }
        return GuardFolder(descriptor: file)
    }

    private static func openMount(makes: Bool) throws(GuardFailure) -> Int32? {
        for isMounted in [false, true] {
            let file = Glibc.open(mountPoint, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            guard file >= 0 else { throw failure("\(mountPoint) cannot be opened", Errno(rawValue: errno)) }
            if sockalive_file_system(file) == BPF_FS_MAGIC { return file }
            close(file)
            guard makes && !isMounted else { return nil }
            let flags = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)
            guard mount("bpf", mountPoint, "bpf", flags, "mode=0700") == 0 else {
                throw failure("no BPF file system can be mounted on \(mountPoint)", Errno(rawValue: errno))
            }
        }
        return nil
    }

    private static func failure(_ message: String, _ error: Errno) -> GuardFailure {
        switch error {
        case .permissionDenied: GuardFailure(.permission, "\(message) (\(error.name))", remedy: "run as root")
        case .notPermitted:
            GuardFailure(
                .permission, "\(message) (\(error.name))",
                remedy: "run as root with CAP_SYS_ADMIN, once: mount -t bpf -o mode=0700 bpf \(mountPoint)")
        case .noSuchFileOrDirectory, .operationNotSupportedByDevice, .readOnlyFileSystem:
            GuardFailure(
                .unsupported, "\(message) (\(error.name))",
                remedy: "this kernel lacks CONFIG_BPF_SYSCALL, or sysfs is not mounted, or a container hides it: "
                    + "run on the host; or use sockalive watch --guard, which needs no file system")
        default: GuardFailure(.other, "\(message) (\(error))")
        }
    }

    /// One run at a time. The kernel takes the lock back when its holder ends (flock(2)).
    func lock() throws(GuardFailure) {
        while flock(descriptor, LOCK_EX) < 0 {
            guard errno == EINTR else { throw GuardFailure(.other, "no lock: \(Errno(rawValue: errno))") }
        }
    }

    /// Where an object is pinned. A magic link leads into the open folder (proc_pid_fd(5)).
    func path(_ name: String) -> String { "/proc/self/fd/\(descriptor)/\(name)" }

    func folder(_ name: String, makes: Bool = false) throws(Errno) -> GuardFolder {
        if makes && mkdirat(descriptor, name, 0o700) < 0 && errno != EEXIST { throw Errno(rawValue: errno) }
        let file = openat(descriptor, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard file >= 0 else { throw Errno(rawValue: errno) }
        return GuardFolder(descriptor: file)
    }

    func names() throws(Errno) -> [String] {
        let copy = openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0 else { throw Errno(rawValue: errno) }
        var entries = try FolderEntries(copy)
        var names: [String] = []
        while let (name, _) = entries.nextName() { names.append(String(decoding: name, as: UTF8.self)) }
        if let error = entries.error { throw error }
        return names.sorted()
    }

    func remove(_ name: String, isFolder: Bool = false) throws(Errno) {
        guard unlinkat(descriptor, name, isFolder ? AT_REMOVEDIR : 0) < 0, errno != ENOENT else { return }
        throw Errno(rawValue: errno)
    }

    /// Removes a folder and what is in it; first the link, which ends the guard.
    func removeFolder(_ name: String, first: String) throws(Errno) {
        let folder: GuardFolder
        do throws(Errno) {
            folder = try self.folder(name)
        } catch .noSuchFileOrDirectory {
            return
        }
        try folder.remove(first)
        for entry in try folder.names() { try folder.remove(entry) }
        try remove(name, isFolder: true)
    }
}

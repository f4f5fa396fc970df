import SystemPackage

extension Errno {
    /// The symbolic name, as errno(3) lists it.
    var name: String {
        Self.names[self] ?? "E\(rawValue)"
    }

    var isPermission: Bool {
        self == .notPermitted || self == .permissionDenied
    }

    private static let names: [Errno: String] = [
        .notPermitted: "EPERM", .noSuchFileOrDirectory: "ENOENT", .noSuchProcess: "ESRCH",
        .interrupted: "EINTR", .ioError: "EIO", .badFileDescriptor: "EBADF", .noMemory: "ENOMEM",
        .permissionDenied: "EACCES", .badAddress: "EFAULT", .resourceBusy: "EBUSY",
        .notDirectory: "ENOTDIR", .invalidArgument: "EINVAL", .tooManyOpenFilesInSystem: "ENFILE",
        .tooManyOpenFiles: "EMFILE", .noSpace: "ENOSPC", .noFunction: "ENOSYS", .staleNFSFileHandle: "ESTALE",
        .timedOut: "ETIMEDOUT", .notSocket: "ENOTSOCK", .protocolNotAvailable: "ENOPROTOOPT",
        .notSupported: "EOPNOTSUPP", .wouldBlock: "EAGAIN", .canceled: "ECANCELED",
        .connectionReset: "ECONNRESET",
    ]
}

import CSockalive
import SystemPackage

extension Errno {
    /// The symbolic name, as errno(3) lists it; `E` and the number if the C library knows none.
    var name: String {
        sockalive_errno_name(rawValue).map { String(cString: $0) } ?? "E\(rawValue)"
    }

    var isPermission: Bool {
        self == .notPermitted || self == .permissionDenied
    }

    /// This process, or the machine, has no descriptor left (EMFILE, ENFILE).
    package var isOfOpenFiles: Bool {
        self == .tooManyOpenFiles || self == .tooManyOpenFilesInSystem
    }
}

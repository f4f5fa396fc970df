import Glibc
import SockaliveCore
import SystemPackage

/// The lock of a run, with what is to be said where it cannot be had.
final class HeldLock {
    private let lock: RunLock

    private init(_ lock: consuming RunLock) {
        self.lock = lock
    }

    /// For a run that ends where it does not get the lock.
    static func take(_ path: String?, _ reporter: Reporter) throws -> HeldLock? {
        do throws(RunError) {
            return try attempt(path, reporter)
        } catch {
            throw error.printed()
        }
    }

    /// - Parameter path: nil takes the default, and goes on without a lock where its folder is missing.
    static func attempt(_ path: String?, _ reporter: Reporter) throws(RunError) -> HeldLock? {
        guard let file = path ?? defaultPath else {
            reporter.step("no lock: XDG_RUNTIME_DIR is not set")
            return nil
        }
        do throws(Errno) {
            return HeldLock(try RunLock(path: file))
        } catch .wouldBlock {
            throw RunError(
                line: "another run holds the lock \(UntrustedText(file).escaped): wait for it to end", status: .locked)
        } catch {
            if path == nil && error == .noSuchFileOrDirectory {
                reporter.step("no lock: \(file) cannot be created")
                return nil
            }
            throw RunError(
                line: "the lock file \(UntrustedText(file).escaped) cannot be opened (\(error)): "
                    + "name another with --lock, or use --no-lock",
                status: .usage)
        }
    }

    static var defaultPath: String? {
        if geteuid() == 0 { return "/run/sockalive.lock" }
        guard let folder = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }), !folder.isEmpty else { return nil }
        return "\(folder)/sockalive.lock"
    }
}

import Foundation
import Glibc

/// The abilities of this machine.
enum Machine {
    static let isRoot = geteuid() == 0

    static let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))

    /// Whether keepalive can be read back by pidfd_getfd(2): Linux 5.6, and a sandbox that allows it.
    static let readsKeepaliveBack: Bool = {
        // If the test programs are missing, the tests are to fail, and not to be skipped.
        guard TestProgram.areBuilt else { return true }
        guard let victim = try? Victim() else { return false }
        return (try? victim.keepalive()) != nil
    }()

    /// Whether `sockalive` can inject by ptrace: into x86-64 programs only.
    static let injectsByPtrace: Bool = {
        #if arch(x86_64)
            true
        #else
            false
        #endif
    }()

    /// Whether a wait for an io_uring can have a timeout: Linux 5.11, and a machine that allows io_uring.
    static let hasTimedRings: Bool = {
        (try? Sleeper("victim-sleeps", .dynamic64, "io_uring-timeout"))?.result() == "ok"
    }()

    /// The options of unshare(1) for a new namespace. Without root, a user namespace comes first.
    static let privateUser = isRoot ? [] : ["--user", "--map-root-user"]

    static let makesNamespaces = runs(["unshare"] + privateUser + ["--net", "true"])

    /// Whether a process can be given another time since boot (time_namespaces(7)).
    static let movesClock = runs(["unshare", "--time", "--boottime", "300", "true"])

    static let buildsFirewalls =
        has("nft") && has("ip")
        && runs(["unshare"] + privateUser + ["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"])

    static func has(_ command: String) -> Bool {
        // Debian has nft in a folder that an ordinary user's PATH does not have.
        runs(["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin command -v \(command)"])
    }

    static func runs(_ command: [String]) -> Bool {
        (try? Program.run(command))?.status == 0
    }

    static let builds32Bit: Bool = {
        guard let folder = try? TemporaryFolder() else { return false }
        let program = folder.path("small")
        return (try? build32Bit(program)) != nil && runs([program, "and end"])
    }()

    /// A program that sleeps, or ends at once if it has an argument. It uses no headers, because those for 32 bits may
    /// be missing.
    static func build32Bit(_ program: String) throws {
        let source = "int pause(void); int main(int argc, char **argv) { return argv[0] && argc > 1 ? 0 : pause(); }"
        let compiler = "printf '%s' '\(source)' | gcc -m32 -x c -o '\(program)' -"
        guard try Program.run(["sh", "-c", compiler]).status == 0 else { throw CannotBuild() }
    }

    struct CannotBuild: Error {}
}

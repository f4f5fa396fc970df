import Foundation
import Glibc

/// What this machine lets the tests do.
enum Machine {
    static let isRoot = geteuid() == 0

    /// Reading keepalive back takes pidfd_getfd(2): Linux 5.6, and a sandbox that lets it pass.
    static let readsKeepaliveBack: Bool = {
        guard let victim = try? Victim() else { return false }
        return (try? victim.keepalive()) != nil
    }()

    /// `sockalive` injects by ptrace into x86-64 programs.
    static let injectsByPtrace: Bool = {
        #if arch(x86_64)
            true
        #else
            false
        #endif
    }()

    /// The options of unshare(1) that make a namespace; a user namespace first where root is missing.
    static let privateUser = isRoot ? [] : ["--user", "--map-root-user"]

    static let makesNamespaces = runs(["unshare"] + privateUser + ["--net", "true"])

    static let buildsFirewalls =
        has("nft") && has("ip")
        && runs(["unshare"] + privateUser + ["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"])

    static func has(_ command: String) -> Bool {
        // Debian keeps nft where a plain user does not look.
        runs(["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin command -v \(command)"])
    }

    private static func runs(_ command: [String]) -> Bool {
        (try? Program.run(command))?.status == 0
    }
}

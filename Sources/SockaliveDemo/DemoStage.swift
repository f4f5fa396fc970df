import Glibc
import SockaliveCore
import SystemPackage

/// What runs inside the namespaces: the first process there, in the firewall's network.
package enum DemoStage {
    package static let commandName = "demo-stage"

    package static func enter() throws {
        // Outside, what follows would hide the machine's own /proc.
        guard getpid() == 1 else { throw DemoFailure("\(commandName) is a part of `sockalive demo`") }
        try followParent()
        try mountOwnProc()
    }

    /// Ends with the process outside, even one that ended before the kernel was asked for that.
    private static func followParent() throws {
        do {
            try dieWithParent()
        } catch {
            throw DemoFailure("cannot tie the demo to its parent: \(error)")
        }
        if waitReadable(DemoNamespaces.lifeline, until: Deadline(seconds: 0)) { throw ParentGone() }
    }

    /// A /proc of this PID namespace, on which nothing but the demo's own processes can be found.
    private static func mountOwnProc() throws {
        let flags = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)
        guard mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil) == 0,
            mount("proc", "/proc", "proc", flags, nil) == 0
        else {
            let error = Errno(rawValue: errno)
            throw DemoFailure(
                "cannot mount a /proc of its own (\(error)), as in a container; run it on the host itself",
                .noPermission)
        }
    }
}

import Foundation
import Testing

/// A cgroup in which a BPF program gives each new connection SO_KEEPALIVE: of an MPTCP socket the subflow alone.
private final class KeepaliveCgroup {
    private let folder: TemporaryFolder
    private var cgroup: String { folder.path("sockalive-tests-\(ProcessInfo.processInfo.processIdentifier)") }

    init() throws {
        folder = try TemporaryFolder()
        let mount = try Program.run(["mount", "-t", "cgroup2", "none", folder.path("")])
        try #require(mount.status == 0, "\(mount.errors)")
    }

    var launcher: [String] { [TestProgram.path("sock-ops-keepalive"), cgroup] }

    /// After the victim's end.
    func remove() {
        let deadline = Deadline(.seconds(10))
        while rmdir(cgroup) != 0, errno == EBUSY, deadline.millisecondsLeft > 0 {}
    }

    deinit {
        remove()
        _ = try? Program.run(["umount", folder.path("")])
    }

    /// root, MPTCP, and a kernel that lets a program be attached.
    static let isPossible: Bool = {
        guard Machine.isRoot, let cgroup = try? KeepaliveCgroup() else { return false }
        let isAttached = (try? Program.run(cgroup.launcher + ["true"]))?.status == 0
        return isAttached && FileManager.default.fileExists(atPath: "/proc/sys/net/mptcp")
    }()
}

extension ProcessTests {
    /// MPTCP: the options that are read are the socket's, and the packets are the subflow's.
    @Suite(.enabled(if: KeepaliveCgroup.isPossible, "MPTCP, or a BPF program for a cgroup, is not to be had here"))
    struct Subflows {
        private let cgroup: KeepaliveCgroup
        private let victim: Victim

        init() throws {
            let cgroup = try KeepaliveCgroup()
            self.cgroup = cgroup
            victim = try Victim {
                $0.launcher = cgroup.launcher
                $0.isMultipath = true
            }
            #expect(try victim.keepalive().allSatisfy { !$0.enabled })
        }

        /// The victim is ended before its cgroup is removed.
        private func finish() {
            _ = victim.finish()
            cgroup.remove()
        }

        private func list(_ more: String...) throws -> Report.Socket {
            try Report.of(["list"] + victim.selection + more).socket
        }

        @Test(arguments: methods, SourceNames.all)
        func `keepalive of a subflow alone is not called off`(method: String, source: String) throws {
            defer { finish() }
            let socket = try list("--source", source, "--method", method)
            #expect(socket.error == nil && socket.keepalive == nil && socket.before == nil && socket.verdict == nil)
            #expect((7000...7200).contains(try #require(socket.nextProbeSeconds)))
            let table = try Program.sockalive(["list", "--source", source] + victim.selection).output
            #expect(table.contains(/\ {2}\?\ +unknown: on by a subflow, not by its MPTCP socket\n/))
            #expect(try Program.sockalive(["list", "--check"] + victim.selection).status == 1)
        }

        @Test(arguments: methods) func `injection gives the subflow what its socket gets`(method: String) throws {
            defer { finish() }
            let plan = try Program.sockalive(["inject", "--dry-run", "--no-lock"] + victim.selection).output
            #expect(plan.contains("  ? → 600/60/50  "))
            let socket = try Report.of(["inject", "--probe", "--method", method] + victim.selection).socket
            #expect(socket.action == "set" && socket.before == nil && socket.verdict == "protected")
            #expect(socket.probe?.answered == true)
            let later = try list()
            #expect(later.keepalive == .init(.forOneHour))
            #expect(try #require(later.nextProbeSeconds) <= 600)
            // The timer that was read before an injection says nothing of the time after.
            let ordinary = try Victim { $0.isMultipath = true }
            let proved = try Report.of(["inject", "--probe", "--method", method] + ordinary.selection).socket
            #expect(proved.before == .init(.untouched) && proved.probe?.answered == true)
        }

        @Test(arguments: methods) func `off is off, of the subflow as well`(method: String) throws {
            defer { finish() }
            let off = try Report.of(["inject", "--off", "--method", method] + victim.selection).socket
            #expect(off.action == "set" && off.keepalive?.enabled == false)
            let socket = try list()
            #expect(socket.nextProbeSeconds == nil && socket.verdict == "unprotected")
            #expect(socket.keepalive?.enabled == false)
        }

        /// Putting "off" back would take from the subflow what it had.
        @Test(arguments: methods) func `a probe that could not put everything back is not sent`(method: String) throws {
            defer { finish() }
            let probe = try Report.of(["probe", "--method", method] + victim.selection, status: 69).socket
            #expect(probe.probe == nil && probe.error?.remedy?.contains("inject") == true)
            #expect((7000...7200).contains(try #require(try list().nextProbeSeconds)))
        }
    }
}

import CSockalive
import Glibc
import SystemPackage

/// A guard that is tried for real: on a cgroup of its own, with a connection that a child makes to itself.
package enum GuardTrial: Sendable {
    /// Both ends got their keepalive.
    case worked
    /// The kernel sets the options and does not tell whether a program has set them: bpf_getsockopt knows SO_KEEPALIVE
    /// from Linux 6.1 on (net/core/filter.c, sol_socket_sockopt).
    case onlyOverriding
    case failed(GuardFailure)

    package init(procfs: ProcFS) {
        do throws(GuardFailure) {
            self = try Self.trial(procfs)
        } catch {
            self = .failed(error)
        }
    }

    private static func trial(_ procfs: ProcFS) throws(GuardFailure) -> GuardTrial {
        let machine = try GuardMachine(procfs: procfs)
        let (hierarchy, diagnosis) = (machine.hierarchy, machine.diagnosis)
        removeLeftovers(hierarchy)
        let name = "\(prefix)\(getpid())"
        let cgroup: CGroup
        do throws(Errno) {
            cgroup = try hierarchy.make(name)
        } catch {
            throw GuardFailure(
                error.isPermission ? .permission : .unsupported,
                "no cgroup can be made for the trial (\(error.name))", remedy: "run as root on the host")
        }
        defer { hierarchy.remove(name) }
        for overrides in [false, true] {
            let counts = try counts(in: cgroup, hierarchy, overrides: overrides, diagnosis)
            if counts.treated == 2 { return overrides ? .onlyOverriding : .worked }
        }
        throw GuardFailure(
            .other, "a connection in a guarded cgroup got no keepalive",
            remedy: "look whether the loopback interface is up; or use sockalive watch")
    }

    private static let prefix = "sockalive-trial-"

    /// What killed trials left.
    private static func removeLeftovers(_ hierarchy: CGroupHierarchy) {
        for name in (try? hierarchy.root.childNames(limit: 10_000))?.names ?? [] where name.hasPrefix(prefix) {
            guard let pid = Int32(name.dropFirst(prefix.count)), pid > 0 else { continue }
            if pid == getpid() || (kill(pid, 0) < 0 && errno == ESRCH) { hierarchy.remove(name) }
        }
    }

    private static func counts(
        in cgroup: CGroup, _ hierarchy: CGroupHierarchy, overrides: Bool, _ diagnosis: GuardDiagnosis
    ) throws(GuardFailure) -> GuardCounts {
        let settings = GuardSettings(
            ports: nil, request: KeepaliveRequest(), overrides: overrides, place: "trial", path: cgroup.path)
        let loaded = try LoadedGuard(settings, diagnosis)
        let link = try loaded.attach(to: cgroup, hierarchy, diagnosis)
        defer { withExtendedLifetime(link) {} }
        let child = sockalive_fork()
        if child == 0 { connectToItself(in: cgroup) }
        guard child > 0 else {
            throw GuardFailure(.other, "no child process can be started (\(Errno(rawValue: -child)))")
        }
        _ = ChildProcess(pid: child).wait()
        do throws(Errno) {
            return try loaded.maps.counts()
        } catch {
            throw diagnosis.failure("the counters cannot be read", error)
        }
    }

    /// In the child.
    private static func connectToItself(in cgroup: CGroup) -> Never {
        _ = sockalive_die_with_parent()
        let members = openat(cgroup.descriptor, "cgroup.procs", O_WRONLY | O_CLOEXEC)
        guard members >= 0, write(members, "0", 1) == 1 else { _exit(1) }
        let type = Int32(SOCK_STREAM.rawValue)
        let (listener, client) = (socket(AF_INET, type, 0), socket(AF_INET, type, 0))
        // A packet filter may drop what goes to the loopback interface: connect(2) then ends with EINPROGRESS (socket(7)).
        var limit = timeval(tv_sec: 0, tv_usec: 300_000)
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(INADDR_LOOPBACK).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        // The handshake needs no accept(2).
        let isConnected = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(listener, address, size) == 0 && listen(listener, 1) == 0
                    && getsockname(listener, address, &size) == 0 && connect(client, address, size) == 0
            }
        }
        _exit(isConnected ? 0 : 1)
    }
}

import Testing

@testable import SockaliveCore

/// What the path of a cgroup tells. The paths are real ones.
struct CGroupPathTests {
    private static let id = String(repeating: "0123456789abcdef", count: 4)
    private static let other = String(repeating: "f", count: 64)
    private static let uid = "0f9e8d7c-6b5a-4938-8271-605f4e3d2c1b"

    struct Case: Sendable {
        let path: String
        var unit: String?
        var container: (engine: ContainerID.Engine, text: String)?
        var pod: String?
        /// Who could name the container; nil is root.
        var owner: UInt32?
    }

    private static let cases: [Case] = [
        Case(path: "/system.slice/agent.service", unit: "agent.service"),
        Case(path: "/system.slice/system-agent.slice/agent@1.service", unit: "agent@1.service"),
        Case(path: "/system.slice/_cgroup.service", unit: "cgroup.service"),
        Case(path: "/system.slice/agent.service/worker", unit: "agent.service"),
        Case(path: "/init.scope", unit: "init.scope"),
        Case(path: "/user.slice/user-1000.slice/session-3.scope", unit: "session-3.scope"),
        Case(
            path: "/machine.slice/libpod-\(id).scope/container", unit: "libpod-\(id).scope", container: (.podman, id)),
        Case(path: "/machine.slice/libpod-conmon-\(id).scope", unit: "libpod-conmon-\(id).scope"),
        Case(path: "/libpod_parent/libpod-\(id)", container: (.podman, id)),
        Case(path: "/libpod_parent/conmon"),
        Case(path: "/libpod_parent/\(other)/libpod-\(id)", container: (.podman, id), pod: other),
        Case(
            path: "/machine.slice/machine-libpod_pod_\(other).slice/libpod-\(id).scope", unit: "libpod-\(id).scope",
            container: (.podman, id), pod: other),
        Case(
            path: "/system.slice/agent.service/libpod-payload-\(id)", unit: "agent.service", container: (.podman, id)),
        Case(
            path: "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-\(id).scope/container",
            unit: "user@1000.service", container: (.podman, id), owner: 1000),
        Case(path: "/docker/\(id)", container: (.other, id)),
        Case(path: "/../docker/\(id)", container: (.other, id)),
        Case(path: "/system.slice/docker-\(id).scope", unit: "docker-\(id).scope", container: (.docker, id)),
        Case(path: "/system.slice/nerdctl-\(id).scope", unit: "nerdctl-\(id).scope", container: (.containerd, id)),
        Case(
            path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"
                + "0f9e8d7c_6b5a_4938_8271_605f4e3d2c1b.slice/cri-containerd-\(id).scope",
            unit: "cri-containerd-\(id).scope", container: (.containerd, id), pod: uid),
        Case(
            path: "/kubepods.slice/kubepods-pod0f9e8d7c_6b5a_4938_8271_605f4e3d2c1b.slice/crio-\(id).scope/container",
            unit: "crio-\(id).scope", container: (.crio, id), pod: uid),
        Case(path: "/kubepods/besteffort/pod\(uid)/\(id)", container: (.other, id), pod: uid),
        Case(path: "/../../pod\(uid)/\(id)", container: (.other, id), pod: uid),
        Case(
            path: "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod0f9e8d7c_6b5a_4938_8271_605f4e3d2c1b.slice"
                + "/cri-containerd-\(id).scope",
            unit: "cri-containerd-\(id).scope", container: (.containerd, id), pod: uid),
        // A static pod has a hash for a UID.
        Case(
            path: "/kubepods/pod0123456789abcdef0123456789abcdef/\(id)", container: (.other, id),
            pod: "0123456789abcdef0123456789abcdef"),
        Case(
            path: "/machine.slice/machine-web\\x2d1.scope/payload/system.slice/agent.service",
            unit: "machine-web\\x2d1.scope", container: (.nspawn, "web-1")),
        Case(path: "/machine.slice/machine-web.scope/supervisor", unit: "machine-web.scope"),
        Case(
            path: "/machine.slice/systemd-nspawn@web.service/payload", unit: "systemd-nspawn@web.service",
            container: (.nspawn, "web")),
        Case(path: "/lxc.payload.web/system.slice/agent.service", container: (.lxc, "web")),
        Case(path: "/lxc.monitor.web"),
        // What a container names itself is neither a unit nor another container, nor a pod.
        Case(path: "/docker/\(id)/system.slice/agent.service", container: (.other, id)),
        Case(path: "/docker/\(id)/docker/\(other)", container: (.other, id)),
        Case(path: "/docker/\(id)/kubepods/pod\(uid)/\(other)", container: (.other, id)),
        // What a user names is not root's.
        Case(path: "/user.slice/user-1000.slice/user@1000.service/agent.service", unit: "user@1000.service"),
        Case(
            path: "/user.slice/user-1000.slice/user@1000.service/machine.slice/libpod-\(id).scope",
            unit: "user@1000.service", container: (.podman, id), owner: 1000),
        Case(path: "/"),
        Case(path: "/../.."),
        Case(path: "/system.slice"),
        Case(path: "/system.slice/docker"),
        Case(path: "/docker/\(id.dropLast())"),
        Case(path: "/docker/\(id.uppercased())"),
        Case(path: "/docker/x\(id)"),
        Case(path: "/kubepods/pod\(uid.dropLast())x/y"),
        Case(path: "/system.slice/a\u{7}.service"),
        Case(path: "/system.slice/agent@.service"),
    ]

    @Test(arguments: cases)
    func tellsUnitContainerAndPod(_ wanted: Case) {
        let path = CGroupPath(wanted.path.utf8)
        #expect(path.text.decoded == wanted.path)
        #expect(path.unit?.value.description == wanted.unit)
        #expect(path.container?.value.engine == wanted.container?.engine)
        #expect(path.container?.value.text == wanted.container?.text)
        #expect(path.pod?.value.text == wanted.pod)
        #expect(path.container.flatMap { path.owner(ofDepth: $0.depth) } == wanted.owner)
    }

    @Test func knowsThePathOfAPart() throws {
        let path = CGroupPath("/machine.slice/libpod-\(Self.id).scope/container".utf8)
        #expect(
            path.path(depth: try #require(path.container).depth).decoded == "/machine.slice/libpod-\(Self.id).scope")
        #expect(path.path(depth: 0).decoded == "/")
    }

    @Test(arguments: [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("12:pids:/x\n1:name=systemd:/system.slice/a.service\n", "/system.slice/a.service"),
        ("1:name=systemd:/system.slice/a.service\n0::/\n", "/system.slice/a.service"),
        ("1:name=systemd:/b\n0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("1:name=systemd:/\n0::/\n", "/"),
        // A path may have colons, and what stands behind one is no line of its own.
        ("0::/a:0::/b\n", "/a:0::/b"),
        ("4:memory:/x\n0::/y:name=systemd:/z", "/y:name=systemd:/z"),
    ])
    func takesTheHierarchyThatTells(_ text: String, _ path: String) {
        #expect(CGroupPath(procfs: Array(text.utf8))?.text.decoded == path)
    }

    @Test(arguments: ["", "\n", "0::\n", "0:\n", "4:memory:/x\n", "0:name:/x\n", "::/x"])
    func isUnknownWithoutThatHierarchy(_ text: String) {
        #expect(CGroupPath(procfs: Array(text.utf8)) == nil)
    }

    @Test(arguments: [
        ("agent", "agent.service"), ("agent.service", "agent.service"), ("agent@1", "agent@1.service"),
        ("agent.sh", "agent.sh.service"), ("libpod-x.scope", "libpod-x.scope"), ("a\\x2db", "a\\x2db.service"),
        ("agent@1.service", "agent@1.service"),
    ])
    func takesANameWithoutItsType(_ written: String, _ name: String) {
        #expect(UnitName(written: written)?.description == name)
    }

    @Test(arguments: ["", "agent@", "agent@.service", "@1", "a b", "a/b", "ä", String(repeating: "a", count: 248)])
    func refusesWhatIsNoName(_ written: String) {
        #expect(UnitName(written: written) == nil)
    }
}

struct CGroupGlobTests {
    @Test(arguments: [
        ("/system.slice/agent.service", "/system.slice/agent.service", true),
        ("/system.slice/agent.service", "/system.slice/agent.service/worker", true),
        ("system.slice", "/system.slice/agent.service", true),
        ("/system.slice/*.service", "/system.slice/agent.service", true),
        ("/system.slice/agent@*.service", "/system.slice/agent@1.service/x", true),
        ("/*/agent.service", "/a/agent.service", true),
        ("/*/agent.service", "/a/b/agent.service", false),
        ("/a*c*e", "/abcde", true),
        ("/a*c*e", "/abcdef", false),
        ("/a?c", "/abc", true),
        ("/a?c", "/ac", false),
        ("/[ab]x", "/bx", true),
        ("/[!ab]x", "/bx", false),
        ("/[a-c]x", "/bx", true),
        ("/[]x]", "/]", true),
        ("/[ab", "/[ab", true),
        ("/a\\x2db", "/a\\x2db", true),
        ("/system.slice", "/../../system.slice/agent.service", true),
        ("/agent.service", "/system.slice/agent.service", false),
        ("/system.slice/agent.service", "/system.slice", false),
        ("/*", "/", false),
    ])
    func matchesAPathOrItsParent(_ glob: String, _ path: String, _ matches: Bool) throws {
        #expect(try #require(CGroupGlob(glob)).matches(CGroupPath(path.utf8)) == matches)
    }

    @Test(arguments: ["", "/", "//", "/../x", "/a/.."])
    func refusesWhatCannotMatch(_ glob: String) {
        #expect(CGroupGlob(glob) == nil)
    }

    /// A pattern that would take a recursive matcher for ever.
    @Test func isNotSlowedDownByAName() throws {
        let glob = try #require(CGroupGlob("/" + String(repeating: "*a", count: 30) + "b"))
        #expect(!glob.matches(CGroupPath(("/" + String(repeating: "a", count: 255)).utf8)))
    }
}

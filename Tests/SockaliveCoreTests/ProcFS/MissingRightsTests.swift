import Testing

@testable import SockaliveCore

extension MissingRights {
    /// Root on the host, with every right.
    static let ofRoot = MissingRights(
        users: .all(0), groups: .all(0), held: [.sysPtrace, .dacReadSearch, .sysAdmin], yama: nil,
        surroundings: Surroundings(isFirstPID: true, isFirstUser: true, isFirstNetwork: true))
}

extension ProcessStatus.IDs {
    static func all(_ id: UInt32) -> Self { Self(real: id, effective: id, saved: id) }
}

@Suite struct MissingRightsTests {
    private let dockerDefault = Capabilities(rawValue: 0x8004_25fb)
    private let agent = MissingRights.Target(users: .all(0), groups: .all(0))

    private func rights(
        uid: UInt32 = 0, _ held: Capabilities = [], _ container: Surroundings.Container? = nil,
        _ change: (inout MissingRights) -> Void = { _ in }
    ) -> MissingRights {
        var rights = MissingRights(
            users: .all(uid), groups: .all(uid), held: held,
            surroundings: Surroundings(container: container, isFirstPID: true, isFirstUser: true), target: agent)
        change(&rights)
        return rights
    }

    @Test func `an ordinary user is told to be root, or which capabilities it takes`() {
        #expect(rights(uid: 1000).cause == .otherUser)
        #expect(rights(uid: 1000).reason == "it is user 0's")
        #expect(rights(uid: 1000).remedy == "run as root or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")
        #expect(rights(uid: 1000) { $0.yama = 1 }.remedy.hasSuffix("(kernel.yama.ptrace_scope is 1)"))
    }

    @Test(arguments: [
        (Surroundings.Container.docker, "docker run --cap-add SYS_PTRACE"),
        (.podman, "podman run --cap-add SYS_PTRACE"),
        (.kubernetes, "capabilities: add: [SYS_PTRACE]"), (.nspawn, "--capability=CAP_SYS_PTRACE"),
        (.other, "--cap-add"), (nil, "CapabilityBoundingSet="),
    ])
    func `root in a container is told how to get the capability there`(
        container: Surroundings.Container?, remedy: String
    ) {
        for held in [[], dockerDefault] {
            let found = rights(held, container) { $0.target?.permitted = Capabilities(rawValue: 0x1ff_ffff_ffff) }
            #expect(found.remedy.contains(remedy), "\(found.remedy)")
            #expect(!found.remedy.contains("as root") && !found.remedy.contains("--user"))
        }
        #expect(rights(uid: 1000, [], container).remedy.contains("PTRACE"))
    }

    @Test func `another user in a container is told to be root there`() {
        let found = rights(uid: 1000, [], .docker)
        #expect(found.remedy.hasSuffix("docker run --user 0 --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH"))
        #expect(rights(uid: 1000, [], .kubernetes).remedy.contains("runAsUser: 0"))
    }

    @Test func `CAP_DAC_OVERRIDE opens the descriptors as well`() {
        func foreign(_ held: Capabilities) -> MissingRights { rights(held) { $0.target?.users = .all(1000) } }
        #expect(foreign([.sysPtrace]).cause == .folder)
        #expect(foreign([.sysPtrace]).remedy.contains("add CAP_DAC_READ_SEARCH"))
        #expect(foreign([.sysPtrace, .dacOverride]).cause == .securityModule)
        #expect(foreign([.dacOverride]).remedy.contains("add CAP_SYS_PTRACE:"))
        #expect(foreign([]).remedy.contains("add CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH:"))
    }

    @Test func `the capabilities that only the target has are named`() {
        let one = rights(dockerDefault) { $0.target?.permitted = dockerDefault.union(.sysAdmin) }
        #expect(one.cause == .capabilities(.sysAdmin))
        #expect(one.reason == "it has CAP_SYS_ADMIN, which sockalive lacks")
        let all = rights([]) { $0.target?.permitted = Capabilities(rawValue: 0x1ff_ffff_ffff) }
        #expect(all.reason.contains("CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and 38 more"))
        // A subset is no obstacle.
        #expect(rights(dockerDefault) { $0.target?.permitted = .dacOverride }.cause == .undumpable)
    }

    @Test func `Yama, a group and an undumpable program are told apart`() {
        #expect(rights(uid: 0) { $0.yama = 1 }.cause == .yama)
        #expect(rights(uid: 0) { $0.yama = 1 }.remedy.contains("sysctl -w kernel.yama.ptrace_scope=0"))
        #expect(rights(uid: 0) { $0.target?.groups = .all(5) }.reason == "it has group 5")
        #expect(rights(uid: 0).reason.contains("not dumpable"))
        let all = Capabilities(rawValue: 0x1ff_ffff_ffff)
        #expect(rights(all) { $0.yama = 3 }.remedy.contains("not even root"))
        #expect(rights(all) { $0.yama = 2 }.cause == .securityModule)
    }

    @Test func `root of a user namespace is told that its capabilities end there`() {
        let all = Capabilities(rawValue: 0x1ff_ffff_ffff)
        for isKnown in [true, false] {
            let found = rights(all, .podman) {
                $0.surroundings.isFirstUser = false
                $0.target?.isOutside = isKnown
            }
            #expect(found.cause == .userNamespace)
            #expect(found.remedy.contains("sudo podman run"))
        }
        let withoutTracing = rights(dockerDefault, .podman) {
            $0.surroundings.isFirstUser = false
            $0.target?.isOutside = true
        }
        #expect(withoutTracing.cause == .userNamespace)
        // Inside, more capabilities help.
        let inside = rights(dockerDefault, .podman) {
            $0.surroundings.isFirstUser = false
            $0.target?.permitted = all
        }
        #expect(inside.remedy.contains("podman run --cap-add SYS_PTRACE"))
    }

    @Test func `a security module is named if nothing else explains it`() {
        let all = Capabilities(rawValue: 0x1ff_ffff_ffff)
        func remedy(_ label: String?, _ container: Surroundings.Container? = nil) -> String {
            rights(all, container) { $0.label = label.map { UntrustedText($0) } }.remedy
        }
        #expect(remedy("docker-default (enforce)", .docker).contains("--security-opt apparmor=unconfined"))
        #expect(remedy("system_u:system_r:container_t:s0", .podman).contains("--security-opt label=disable"))
        for label in ["unconfined", "unconfined_u:unconfined_r:unconfined_t:s0", nil] {
            #expect(remedy(label).contains("Landlock"))
        }
        #expect(rights(dockerDefault) { $0.label = UntrustedText("docker-default (enforce)") }.cause == .undumpable)
    }

    @Test func `a map of users that leads out of ours belongs to an outer namespace`() {
        func leadsOutside(_ map: String, from own: String) -> Bool {
            UserMap(Array(map.utf8)).leadsOutside(UserMap(Array(own.utf8)))
        }
        let rootless = "         0       1001          1\n         1     100000      65536\n"
        #expect(leadsOutside("         0 4294967295 4294967295\n", from: rootless))
        #expect(leadsOutside("         0          0 4294967295\n", from: "         0          0          1\n"))
        #expect(leadsOutside("         0          0          1\n         1 4294967295      65536\n", from: rootless))
        #expect(!leadsOutside("         0       1000          1\n", from: rootless))
        #expect(!leadsOutside("         0       1000          1\n", from: "         0          0 4294967295\n"))
    }

    @Test func `capabilities are read from the effective set`() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000080004\nCapBnd:\t000001ffffffffff\n"
        let capabilities = ProcessStatus(Array(("Uid:\t0\t0\t0\t0\n" + status).utf8))?.effectiveCapabilities
        #expect(capabilities == [.sysPtrace, .dacReadSearch])
        #expect(ProcessStatus(Array("Uid:\t0\t0\t0\t0\n".utf8))?.effectiveCapabilities == nil)
    }

    @Test func `capabilities have the kernel's names`() {
        #expect(Capabilities([.dacOverride, .dacReadSearch]).names == ["DAC_OVERRIDE", "DAC_READ_SEARCH"])
        #expect(Capabilities([.sysPtrace, .sysAdmin]).names == ["SYS_PTRACE", "SYS_ADMIN"])
        #expect(Capabilities(rawValue: 1 << 40).names == ["CHECKPOINT_RESTORE"])
        #expect(Capabilities(rawValue: 1 << 41).names == ["41"])
    }
}

@Suite struct SurroundingsTests {
    private static let id = String(repeating: "0123456789abcdef", count: 4)

    private func container(
        marks: [Surroundings.Container] = [], cgroup: String = "0::/\n", mounts: String = ""
    ) -> Surroundings.Container? {
        Surroundings.container(marks: marks, cgroup: Array(cgroup.utf8), mountinfo: Array(mounts.utf8))
    }

    @Test(arguments: [
        ("0::/machine.slice/libpod-\(id).scope/container", Surroundings.Container.podman),
        ("0::/system.slice/agent.service/libpod-payload-\(id)", .podman), ("0::/docker/\(id)", .docker),
        ("0::/system.slice/docker-\(id).scope", .docker),
        ("0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-\(id).scope", .kubernetes),
        ("0::/kubepods/besteffort/pod1/\(id)", .kubernetes), ("4:memory:/docker/\(id)", .docker),
        ("0::/system.slice/docker.service", nil), ("0::/user.slice/user-1000.slice/session-1.scope", nil),
        ("0::/", nil),
    ])
    func `a container is known by its cgroup`(cgroup: String, expected: Surroundings.Container?) {
        #expect(container(cgroup: cgroup + "\n") == expected)
    }

    @Test func `a container with a cgroup namespace of its own is known by files and mounts`() {
        // A virtual machine that was made from an image.
        #expect(container(marks: [.docker]) == nil)
        #expect(container(marks: [.docker], mounts: mount("/hosts")) == .docker)
        #expect(container(marks: [.nspawn]) == .nspawn)
        func mount(_ source: String) -> String { "107 97 254:0 \(source) /etc/hosts rw - ext4 /dev/vda rw\n" }
        #expect(container(mounts: mount("/var/lib/docker/containers/\(Self.id)/hosts")) == .docker)
        #expect(container(mounts: mount("/var/lib/containers/storage/overlay-containers/x/userdata/hosts")) == .podman)
        #expect(container(mounts: mount("/var/lib/kubelet/pods/x/etc-hosts")) == .kubernetes)
        // CRI-O has no mark of its own; podman's may be in the image.
        #expect(container(marks: [.podman], mounts: mount("/var/lib/kubelet/pods/x/etc-hosts")) == .kubernetes)
        #expect(container(mounts: "22 1 0:20 / /proc rw - proc proc rw\n") == nil)
    }
}

@Suite struct KernelVersionTests {
    @Test(arguments: [
        ("5.4.0-216-generic", true), ("4.18.0-553.el8_10.x86_64", true), ("5.6.0", false), ("5.10", false),
        ("6.18.44", false), ("7.2-rc1", false), ("", false), ("strange", false),
    ])
    func `a release is compared with the one that brought a call`(text: String, isBefore: Bool) {
        #expect(KernelVersion(text.utf8).isBefore(5, 6) == isBefore)
    }

    @Test(arguments: [
        ("2.6.32-754.el6.x86_64", true), ("3.2.0-4-amd64", true), ("3.9.11", true), ("3.10.0-1160.el7.x86_64", false),
        ("3.10", false), ("4.0.0", false), ("6.18.44", false), ("", false),
    ])
    func `the support starts at 3_10`(text: String, isUnsupported: Bool) {
        #expect(KernelVersion(text.utf8).isUnsupported == isUnsupported)
    }
}

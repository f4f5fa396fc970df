import Foundation
import SystemPackage
import Testing

@testable import SockaliveCore

/// What an error of bpf(2) is taken for, on machines that are described by text.
@Suite struct GuardDiagnosisTests {
    /// A `/proc` of a process with these capabilities.
    private func diagnosis(
        _ capabilities: Capabilities, release: String = "6.12.1", userNamespace: UInt32 = 0xEFFF_FFFD
    ) throws -> GuardDiagnosis {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(
            at: folder.appendingPathComponent("self/ns"), withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(
            atPath: folder.appendingPathComponent("self/ns/user").path,
            withDestinationPath: "user:[\(userNamespace)]")
        let status = """
            Name:\tsockalive
            Tgid:\t7
            TracerPid:\t0
            Uid:\t0\t0\t0\t0
            Gid:\t0\t0\t0\t0
            Groups:\t
            CapPrm:\t\(String(capabilities.rawValue, radix: 16))
            CapEff:\t\(String(capabilities.rawValue, radix: 16))
            Seccomp:\t0

            """
        try status.write(to: folder.appendingPathComponent("self/status"), atomically: true, encoding: .utf8)
        return GuardDiagnosis(
            procfs: try ProcFS(root: FilePath(folder.path)), release: KernelVersion(Array(release.utf8)))
    }

    @Test(arguments: [
        (Capabilities([]), "CAP_NET_ADMIN and CAP_BPF is missing"), (.bpf, "CAP_NET_ADMIN is missing"),
        (.netAdmin, "CAP_BPF is missing"),
    ])
    func `the rights that are missing are named`(held: Capabilities, message: String) throws {
        let failure = try diagnosis(held).failure("no map", .notPermitted)
        #expect(failure.kind == .permission && failure.message.contains(message), "\(failure.message)")
        #expect(failure.remedy != nil)
    }

    @Test(arguments: [Capabilities.sysAdmin, [.bpf, .netAdmin]])
    func `where the rights are there, something else refuses`(held: Capabilities) throws {
        let failure = try diagnosis(held).failure("no map", .notPermitted)
        #expect(failure.kind == .permission && !failure.message.contains("missing"))
        let other = try diagnosis(held, userNamespace: 4_026_532_000).failure("no map", .notPermitted)
        #expect(other.message.contains("user namespace"))
    }

    @Test func `before Linux 5,9 there are no guards, and from then on there are`() throws {
        for release in ["3.10.0-1160.el7", "4.18.0-553.el8", "5.8.18"] {
            let failure = try #require(try diagnosis(.sysAdmin, release: release).oldKernel)
            #expect(failure.kind == .unsupported && failure.remedy?.contains("sockalive watch") == true)
        }
        for release in ["5.9.0", "5.10.0-30-amd64", "6.18.44", "unknown"] {
            #expect(try diagnosis(.sysAdmin, release: release).oldKernel == nil)
        }
    }

    @Test func `an error is unsupported where the kernel lacks the call`() throws {
        for error in [Errno.noFunction, .invalidArgument] {
            #expect(try diagnosis(.sysAdmin).failure("no map", error).kind == .unsupported)
        }
        #expect(try diagnosis(.sysAdmin).failure("no program", .permissionDenied, log: "R1 bad").kind == .other)
    }

    @Test func `the mount of the hierarchy's root is taken, and its name is unescaped`() {
        func mount(_ lines: String...) -> String? {
            CGroupHierarchy.mountPoint(in: Array(lines.joined(separator: "\n").utf8)).map {
                String(decoding: $0, as: UTF8.self)
            }
        }
        #expect(mount("25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw") == "/sys/fs/cgroup")
        #expect(mount("25 1 0:23 / /a\\040b rw - cgroup2 none rw") == "/a b")
        let part = "25 1 0:23 /part /x rw - cgroup2 none rw"
        #expect(mount(part) == nil)
        #expect(mount(part, "26 1 0:24 / /y rw - cgroup cgroup rw", "27 1 0:23 / /z rw - cgroup2 none rw") == "/z")
        #expect(mount("27 1 0:23 / /z rw", "", "x", "- cgroup2") == nil)
    }
}

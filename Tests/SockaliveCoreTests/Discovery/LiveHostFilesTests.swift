import Foundation
import Testing

@testable import SockaliveCore

/// Files that belong to users may be anything.
final class LiveHostFilesTests {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("sockalive-files-\(UUID())")
        .path
    private let user = getuid()
    private let files: HostFiles

    init() throws {
        try FileManager.default.createDirectory(atPath: folder + "/in/deep", withIntermediateDirectories: true)
        files = try #require(HostFiles(procfs: try ProcFS(), root: folder))
        try write("in/deep/file")
    }

    deinit {
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func write(_ path: String, _ text: String = "text") throws {
        try text.write(toFile: "\(folder)/\(path)", atomically: false, encoding: .utf8)
    }

    private func read(_ path: String, limit: Int = 100) -> String? {
        files.read(path, owner: user, limit: limit).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test func readsARegularFileOfItsOwner() throws {
        #expect(read("/in/deep/file") == "text")
        #expect(files.read("/in/deep/file", owner: user + 1) == nil)
        #expect(read("/in/deep/file", limit: 3) == nil)
        #expect(read("/in/deep") == nil && read("/in/none") == nil && read("/") == nil && read("") == nil)
        #expect(read("/in/../in/deep/file") == nil)
        #expect(Set(files.names(in: "/in/deep", owner: user)) == [Array("file".utf8)])
        #expect(files.names(in: "/in/deep", owner: user + 1).isEmpty)
        #expect(files.names(in: "/in/deep/file", owner: user).isEmpty)
    }

    @Test func waitsForNoFIFO() {
        #expect(mkfifo(folder + "/in/fifo", 0o600) == 0)
        #expect(read("/in/fifo") == nil)
        #expect(read("/in/fifo/x") == nil)
    }

    /// Root's links lead below the root that is given, wherever they point.
    @Test(.enabled(if: getuid() == 0, "only root can make a link of another user's"))
    func followsLinksOfRootAlone() throws {
        for (name, target) in [
            ("whole", "/in/deep"), ("part", "deep"), ("file", "/in/deep/file"), ("loop", "loop"), ("out", "/../../etc"),
        ] {
            #expect(symlink(target, folder + "/in/\(name)") == 0)
        }
        #expect(read("/in/whole/file") == "text")
        #expect(read("/in/part/file") == "text")
        #expect(read("/in/file") == "text")
        #expect(read("/in/loop") == nil)
        #expect(read("/in/out/hostname") == nil)
        for name in ["whole", "file"] { lchown(folder + "/in/\(name)", 65534, 65534) }
        #expect(read("/in/whole/file") == nil)
        #expect(read("/in/file") == nil)
    }
}

/// Names from the files of engines, in a root folder of the test's.
@Suite(.enabled(if: getuid() == 0, "root's containers are named by root's files"))
final class LiveContainerNamesTests {
    private static let id = String(repeating: "0123456789abcdef", count: 4)
    private static let uid = "0f9e8d7c-6b5a-4938-8271-605f4e3d2c1b"
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("sockalive-names-\(UUID())").path

    deinit {
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func write(_ path: String, _ text: String, owner: UInt32 = 0) throws {
        let parent = folder + path.prefix(upTo: try #require(path.lastIndex(of: "/")))
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        try text.write(toFile: folder + path, atomically: false, encoding: .utf8)
        chown(folder + path, owner, owner)
    }

    private func names() throws -> ContainerNames {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let procfs = try ProcFS()
        return ContainerNames(procfs: procfs, files: HostFiles(procfs: procfs, root: folder))
    }

    private func name(owner: UInt32 = 0) throws -> String? {
        let id = ContainerID(engine: .other, text: Self.id)
        return try names().name(of: id, owner: owner, pid: getpid()).name?.decoded
    }

    private static let stored = #"[{"id":"\#(id)","names":["web"]}]"#

    @Test(arguments: [
        ("/var/lib/docker/containers/\(id)/config.v2.json", #"{"ID":"x","Name":"/web"}"#),
        ("/var/lib/containers/storage/overlay-containers/containers.json", stored),
        ("/var/lib/containers/storage/vfs-containers/volatile-containers.json", stored),
        ("/run/containers/storage/overlay-containers/volatile-containers.json", stored),
        ("/var/log/containers/pod_ns_web-\(id).log", ""),
        (
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/\(id)/config.json",
            #"{"annotations":{"io.kubernetes.cri.container-name":"web"}}"#
        ),
        (
            "/run/containers/storage/overlay-containers/\(id)/userdata/config.json",
            #"{"annotations":{"io.kubernetes.container.name":"web"}}"#
        ),
    ])
    func findsTheNameInAFileOfRoots(_ path: String, _ text: String) throws {
        try write(path, text)
        #expect(try name() == "web")
        // The same file of another user's says nothing about root's container, and root's nothing about a user's.
        #expect(try name(owner: 1234) == nil)
        if !path.hasPrefix("/var/log") {
            chown(folder + path, 1234, 1234)
            #expect(try name() == nil)
        }
    }

    @Test func aUsersFileNamesThatUsersContainersAlone() throws {
        try write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nbob:x:1234:1234::/home/bob:/bin/sh\n")
        let path = "/home/bob/.local/share/containers/storage/overlay-containers/containers.json"
        try write(path, Self.stored, owner: 1234)
        #expect(try name(owner: 1234) == "web")
        #expect(try name() == nil)
        #expect(try name(owner: 1235) == nil)
        #expect(try !names().rootHas(ContainerSelector("web")))
        // A pipe that nobody writes into.
        unlink(folder + path)
        #expect(mkfifo(folder + path, 0o666) == 0)
        chown(folder + path, 1234, 1234)
        #expect(try name(owner: 1234) == nil)
    }

    @Test func whatAUsersNamesCostIsBounded() throws {
        try write("/etc/passwd", "bob:x:1234:1234::/home/bob:/bin/sh\n")
        let blanks = String(repeating: " ", count: 1_000_000)
        let ids = (0..<40).map { String(format: "%064x", $0) }
        for id in ids {
            let path = "/home/bob/.local/share/docker/containers/\(id)/config.v2.json"
            try write(path, #"{"Name":"/web"\#(blanks)}"#, owner: 1234)
        }
        let bobs = try names()
        let known = ids.count {
            bobs.name(of: ContainerID(engine: .docker, text: $0), owner: 1234, pid: getpid()).name != nil
        }
        #expect(known == NameBudget.ofUser / 1_000_000)
        // A text that is too long says nothing, though it is the only one.
        let path = "/.local/share/containers/storage/overlay-containers/containers.json"
        try write("/home/bob" + path, Self.stored + blanks, owner: 1234)
        #expect(try name(owner: 1234) == "web")
        try write("/home/bob" + path, Self.stored + blanks + blanks, owner: 1234)
        #expect(try name(owner: 1234) == nil)
        try write("/var/lib/containers/storage/overlay-containers/containers.json", Self.stored + blanks + blanks)
        #expect(try name() == "web")
    }

    @Test func rootsStoppedContainersAreKnown() throws {
        try write("/var/lib/containers/storage/overlay-containers/containers.json", Self.stored)
        let names = try names()
        #expect(names.rootHas(ContainerSelector("web")))
        #expect(names.rootHas(ContainerSelector("0123456789ab")))
        #expect(!names.rootHas(ContainerSelector("other")))
        #expect(!names.rootHas(ContainerSelector("123456789abc")))
    }

    @Test func podsAreNamedByTheKubeletAndByPodman() throws {
        try write("/var/log/pods/shop_web-0_\(Self.uid)/x", "")
        let kubernetes = try names().name(
            of: PodID(text: Self.uid), owner: 0, container: nil, nil, pid: getpid())
        #expect(kubernetes == PodName(name: UntrustedText("web-0"), namespace: UntrustedText("shop")))
        #expect(try names().rootHas(#require(PodSelector("shop/web-0"))))
        try write("/var/lib/containers/storage/db.sql", #"SQLite\#u{0}{"id":"\#(Self.id)","name":"mypod","labels":{}}"#)
        let podman = try names().name(of: PodID(text: Self.id), owner: 0, container: nil, nil, pid: getpid())
        #expect(podman == PodName(name: UntrustedText("mypod")))
    }
}

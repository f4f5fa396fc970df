import Testing

@testable import SockaliveCore

/// What engines leave in command lines, names of files and databases.
struct EngineTextTests {
    private static let id = String(repeating: "0123456789abcdef", count: 4)

    private func monitor(_ words: [String]) -> MonitorArguments? {
        var text: [UInt8] = []
        for word in words {
            text.append(contentsOf: word.utf8)
            text.append(0)
        }
        return MonitorArguments(text)
    }

    @Test func readsTheCommandLineOfAMonitor() throws {
        let storage = "/var/lib/containers/storage"
        let found = try #require(
            monitor([
                "/usr/bin/conmon", "--api-version", "1", "-c", Self.id, "-u", Self.id, "-r", "/usr/bin/crun", "-b",
                "\(storage)/overlay-containers/\(Self.id)/userdata", "-p", "/run/x/pidfile", "-n", "web", "--exit-dir",
                "/run/libpod/exits", "-s", "-l", "journald", "--runtime-arg", "-n", "--exit-command", "/usr/bin/podman",
                "--exit-command-arg", "-c", "--exit-command-arg", "x",
            ]))
        #expect(found.id == Self.id)
        #expect(found.containerName == ContainerName(name: UntrustedText("web")))
        #expect(found.storage.map { String(decoding: $0, as: UTF8.self) } == storage)
    }

    @Test func isNotMisledByWhatIsMeantForAnotherProgram() throws {
        let found = try #require(
            monitor(["conmon", "--exit-command-arg", "-n", "--exit-command-arg", "evil", "-c", Self.id, "-n", "web"]))
        #expect(found.name == Array("web".utf8))
    }

    @Test(arguments: [
        [], ["bash", "-c", id, "-n", "web"], ["conmon"], ["conmon", "-c"], ["conmon", "-c", "short", "-n", "web"],
        ["conmon", "-c", String(repeating: "G", count: 64)],
    ])
    func isNoMonitor(_ words: [String]) {
        #expect(monitor(words) == nil)
    }

    @Test func knowsAPodsContainerByItsEngineName() {
        let name = ContainerName(
            engineName: Array("k8s_app_web-0_shop_0f9e8d7c-6b5a-4938-8271-605f4e3d2c1b_3".utf8)[...])
        let pod = PodName(name: UntrustedText("web-0"), namespace: UntrustedText("shop"))
        #expect(name == ContainerName(name: UntrustedText("app"), pod: pod))
        #expect(ContainerName(engineName: Array("k8s_app".utf8)[...]).name == UntrustedText("k8s_app"))
    }

    @Test func readsWhatTheKubeletNames() throws {
        let pod = try #require(KubeletNames.pod(Array("shop_web-0_0f9e8d7c-6b5a-4938-8271-605f4e3d2c1b".utf8)))
        #expect(pod.uid == "0f9e8d7c-6b5a-4938-8271-605f4e3d2c1b")
        #expect(pod.1 == PodName(name: UntrustedText("web-0"), namespace: UntrustedText("shop")))
        let container = try #require(KubeletNames.container(Array("web-0_shop_app-1-\(Self.id).log".utf8)))
        #expect(container.id == Self.id)
        #expect(container.1 == ContainerName(name: UntrustedText("app-1"), pod: pod.1))
        for wrong in ["web-0_shop_\(Self.id).log", "web-0_shop_app-\(Self.id)", "a_b_c_d", "x"] {
            #expect(KubeletNames.container(Array(wrong.utf8)) == nil)
        }
    }

    @Test(arguments: [
        ("io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.container-name"),
        ("io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.container.name"),
    ])
    func readsAnnotations(_ pod: String, _ namespace: String, _ container: String) throws {
        let text = #"{"\#(pod)":"web-0","\#(namespace)":"shop","\#(container)":"app"}"#
        let name = ContainerName(annotations: JSONValue(text.utf8))
        let wanted = PodName(name: UntrustedText("web-0"), namespace: UntrustedText("shop"))
        #expect(name == ContainerName(name: UntrustedText("app"), pod: wanted))
        #expect(ContainerName(annotations: JSONValue(#"{"x":"y"}"#.utf8)) == nil)
        #expect(ContainerName(annotations: nil) == nil)
    }

    @Test func findsAPodsNameInItsRecord() {
        let other = String(repeating: "f", count: 64)
        let none = String(repeating: "e", count: 64)
        var text = "{\"id\":\"" + other
        text += "\",\"name\":\"no\"}\u{0}{\"id\":\"config{\"id\":\"" + Self.id
        text += "\",\"name\":\"my\\u002dpod\",\"labels\":{}}"
        let database: [UInt8] = Array(text.utf8)
        #expect(ContainerStore.podName(of: Self.id, in: database) == UntrustedText("my-pod"))
        #expect(ContainerStore.podName(of: other, in: database) == UntrustedText("no"))
        #expect(ContainerStore.podName(of: none, in: database) == nil)
        // A record that is cut off, and nothing at all.
        let start: [UInt8] = Array(text.utf8.dropLast(20))
        #expect(ContainerStore.podName(of: Self.id, in: start) == nil)
        #expect(ContainerStore.podName(of: Self.id, in: []) == nil)
    }

    @Test func takesTheFirstNameOfAContainer() {
        let text = #"[{"id":"\#(Self.id)","names":["web","alias"]},{"id":"x","names":["y"]},{"names":["z"]}]"#
        #expect(ContainerStore.names(Array(text.utf8)) == [Self.id: UntrustedText("web")])
    }
}

/// What may be meant, as far as the cgroup alone tells.
struct PlaceSelectionTests {
    private static let id = String(repeating: "0123456789abcdef", count: 4)

    private func path(_ text: String) -> CGroupPath { CGroupPath(text.utf8) }

    @Test func allKindsMustHoldAndOneOfEach() throws {
        let selection = PlaceSelection(
            units: [try #require(UnitName(written: "a")), try #require(UnitName(written: "b"))],
            cgroups: [try #require(CGroupGlob("/system.slice/*"))])
        #expect(selection.mayMean(path("/system.slice/a.service")))
        #expect(selection.mayMean(path("/system.slice/b.service/x")))
        #expect(!selection.mayMean(path("/system.slice/c.service")))
        #expect(!selection.mayMean(path("/machine.slice/a.service")))
        #expect(selection.mayMeanBelow(path("/system.slice")))
        #expect(!selection.mayMeanBelow(path("/system.slice/c.service")))
    }

    @Test func anIDHasTwelveDigits() {
        let id = ContainerID(engine: .podman, text: Self.id)
        #expect(ContainerSelector("0123456789ab").isID(of: id))
        #expect(ContainerSelector(Self.id).isID(of: id))
        #expect(!ContainerSelector("0123456789a").isID(of: id))
        #expect(!ContainerSelector("0123456789AB").isID(of: id))
        #expect(!ContainerSelector("123456789abc").isID(of: id))
        #expect(!ContainerSelector(Self.id + "0").isID(of: id))
    }

    @Test func aPodHasANamespace() throws {
        let name = PodName(name: UntrustedText("web"), namespace: UntrustedText("shop"))
        #expect(try #require(PodSelector("web")).isName(name))
        #expect(try #require(PodSelector("shop/web")).isName(name))
        #expect(!(try #require(PodSelector("other/web")).isName(name)))
        #expect(!(try #require(PodSelector("shop/web")).isName(PodName(name: UntrustedText("web")))))
        #expect(PodSelector("/web") == nil && PodSelector("a/b/c") == nil && PodSelector("") == nil)
    }

    /// The union of rules finds what each finds, and what they do not share is no filter.
    @Test func aUnionKeepsEachPlace() throws {
        func selection(_ processes: ProcessSelection) -> Selection {
            Selection(processes: processes, sockets: SocketSelection(ports: [1]))
        }
        let unit = ProcessSelection(places: PlaceSelection(units: [try #require(UnitName(written: "a"))]))
        let command = ProcessSelection(commands: ["x"])
        let named = ProcessSelection(names: ["n"])
        let union = Selection(unionOf: [unit, named, command, unit].map(selection))
        #expect(union.alternatives == [named, unit, command])
        #expect(Selection(unionOf: [selection(unit)]).alternatives == [unit])
        #expect(Selection(unionOf: [selection(unit), selection(unit)]).alternatives == [unit])
    }
}

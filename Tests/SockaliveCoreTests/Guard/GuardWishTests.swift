import Testing

@testable import SockaliveCore

/// Which rules a guard can follow.
struct GuardWishTests {
    private func places(_ change: (inout ProcessSelection) -> Void) -> [String]? {
        var processes = ProcessSelection(anyProcess: true, places: PlaceSelection())
        change(&processes)
        let selection = Selection(processes: processes, sockets: SocketSelection(ports: [5633]))
        return GuardWish.wishes(of: Rule(selection: selection, request: KeepaliveRequest()))?.map(\.place.words)
    }

    @Test func `any process is the host, and of a unit that unit alone`() throws {
        let unit = try #require(UnitName(written: "agent"))
        #expect(places { _ in } == ["--host"])
        #expect(places { $0.places.units = [unit] } == ["--unit agent.service"])
    }

    @Test func `a rule that means less than a place is not followed`() {
        #expect(places { $0.commands = [UntrustedText("x")] } == nil)
        #expect(places { $0.names = [UntrustedText("x")] } == nil)
        #expect(places { $0.pids = [1] } == nil)
        #expect(places { $0.executable = "/x" } == nil)
        #expect(places { $0.uid = 1 } == nil)
        #expect(
            places {
                $0.places.containers = [ContainerSelector("a")]
                $0.places.cgroups = [CGroupGlob("/b")!]
            } == nil)
    }
}

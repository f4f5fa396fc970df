import Foundation
import Testing

/// Real firewalls, each in its own namespaces; see Tests/Lab.
@Suite(.enabled(if: Machine.buildsFirewalls, "no namespaces, or ip (iproute2) or nft (nftables) is missing"))
struct LabTests {
    @Test func `a session survives the firewall's timeout only with an injection`() throws {
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../Lab/run.sh").standardized.path
        let environment = ProcessInfo.processInfo.environment.merging(["LAB_PROGRAMS": Program.folder.path]) { $1 }
        let lab = try Program.run(["bash", script], environment: environment, deadline: .seconds(60))
        #expect(lab.status == 0, "\(lab.output)\(lab.errors)")
        #expect(lab.output.split(separator: "\n").count { $0.hasPrefix("ok ") } == (GuardHost.isPossible ? 17 : 14))
    }
}

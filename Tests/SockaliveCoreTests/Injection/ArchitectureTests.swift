import Testing

@testable import SockaliveCore

@Suite("What is said on other architectures")
struct ArchitectureTests {
    @Test(arguments: [true, false])
    func `ptrace is a remedy only where there is a ptrace method`(hasPtraceMethod: Bool) throws {
        let failure = SocketFailure.otherTable(SocketHolder(pid: 1, fd: 3), hasPtraceMethod: hasPtraceMethod)
        let remedy = try #require(failure.remedy)
        #expect(remedy.contains("6.9"))
        #expect(remedy.contains("ptrace") == hasPtraceMethod)
    }

    /// A process whose threads cannot be held now could be held later: that must not be said without the method.
    @Test(arguments: [(true, .chooseThread), (false, .unsupported)] as [(Bool, RemoteSocket.Reason)])
    func `without a ptrace method nothing else is the reason`(
        hasPtraceMethod: Bool, reason: RemoteSocket.Reason
    ) throws {
        let procfs = try ProcFS()
        let inspector = TargetInspector(
            procfs: procfs, holder: SocketHolder(pid: .max, fd: 3), inode: 1, rights: OwnRights(procfs: procfs),
            hasPtraceMethod: hasPtraceMethod)
        let error = try #require(throws: RemoteSocket.AttachError.self) { try inspector.target(known: nil) }
        #expect(error.reason == reason)
    }
}

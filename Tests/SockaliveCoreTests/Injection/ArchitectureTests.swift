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
}

import SockaliveCore
import Testing

@Test func `version has three numbers`() {
    #expect(sockaliveVersion.split(separator: ".").compactMap { Int($0) }.count == 3)
}

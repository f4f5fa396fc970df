import SockaliveCore
import Testing

@Test func `the linked version has three numbers`() {
    #expect(sockaliveVersion.split(separator: ".").compactMap { Int($0) }.count == 3)
}

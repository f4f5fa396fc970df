import Testing

@testable import SockaliveCore

struct InodeIndexTests {
    @Test func `it tells what a dictionary of lists would tell`() {
        for size in [0, 1, 8, 9, 1000, 20_000] {
            var index = InodeIndex()
            var expected: [UInt64: [Int]] = [:]
            for number in 0..<size {
                // Consecutive ones, as the kernel gives them; some twice or more; the ends of the range.
                let inode =
                    switch number % 7 {
                    case 0: UInt64.random(in: 0...3)
                    case 1: UInt64.max - UInt64.random(in: 0...3)
                    default: UInt64(1_000_000 + number)
                    }
                index.add(number, inode)
                expected[inode, default: []].append(number)
            }
            #expect(index.count == expected.count)
            for (inode, numbers) in expected {
                #expect(index.all(inode) == numbers && index.first(inode) == numbers[0])
                #expect(index.only(inode) == (numbers.count == 1 ? numbers[0] : nil))
                #expect(index.isShared(inode) == (numbers.count > 1))
            }
            for inode in [4, 999_999, 2_000_000, .max / 2] as [UInt64] {
                #expect(index.first(inode) == nil && index.only(inode) == nil && index.all(inode).isEmpty)
            }
            #expect(Set(index.shared) == Set(expected.values.filter { $0.count > 1 }.joined()))
        }
    }
}

/// Numbers, such as places in a list, by the inodes of sockets. Most inodes have one number.
///
/// Of a busy host twenty thousand inodes are looked up, several times each; a Dictionary takes several times as long for
/// it. This is a hash table with open addressing, half full at most. Inodes count upwards, and who makes sockets can
/// choose which ones to keep. The factor is random, so that nobody knows which ones collide (multiplicative hashing:
/// Dietzfelbinger et al., A Reliable Randomized Algorithm for the Closest-Pair Problem, 1997).
struct InodeIndex {
    private struct Slot {
        var inode: UInt64 = 0
        /// Negative: empty.
        var number: Int32 = -1
    }

    /// A power of two of them.
    private var slots = [Slot](repeating: Slot(), count: 16)
    private var shift: UInt64 = 60
    /// The second number of an inode, and those after it.
    private var further: [UInt64: [Int]] = [:]
    /// How many inodes have numbers.
    private(set) var count = 0

    private static let factor = UInt64.random(in: 0...UInt64.max) | 1

    /// The number of the slot where the inode is, or would be. Inlined everywhere, it makes the program some 10 KB larger.
    @inline(never)
    private func slotNumber(of inode: UInt64) -> Int {
        let mask = slots.count - 1
        var slot = Int((inode &* Self.factor) >> shift)
        while slots[slot].number >= 0 && slots[slot].inode != inode { slot = (slot + 1) & mask }
        return slot
    }

    /// The number that the inode got first.
    @inline(never)
    func first(_ inode: UInt64) -> Int? {
        let number = slots[slotNumber(of: inode)].number
        return number < 0 ? nil : Int(number)
    }

    /// The only number; nil where there are several, or none.
    func only(_ inode: UInt64) -> Int? { isShared(inode) ? nil : first(inode) }

    @inline(never)
    func isShared(_ inode: UInt64) -> Bool { !further.isEmpty && further[inode] != nil }

    /// In the order in which they were added.
    @inline(never)
    func all(_ inode: UInt64) -> [Int] {
        first(inode).map { [$0] + further[inode, default: []] } ?? []
    }

    /// The numbers whose inodes have others, too.
    var shared: [Int] { further.keys.flatMap(all) }

    /// - Parameter number: less than 2³¹.
    mutating func add(_ number: Int, _ inode: UInt64) {
        let slot = slotNumber(of: inode)
        if slots[slot].number >= 0 { return further[inode, default: []].append(number) }
        slots[slot] = Slot(inode: inode, number: Int32(number))
        count += 1
        if count * 2 > slots.count { grow() }
    }

    private mutating func grow() {
        let old = slots
        slots = [Slot](repeating: Slot(), count: old.count * 2)
        shift -= 1
        for slot in old where slot.number >= 0 { slots[slotNumber(of: slot.inode)] = slot }
    }
}

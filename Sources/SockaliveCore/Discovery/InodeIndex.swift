/// Numbers, such as places in a list, by the inodes of sockets. Most inodes have one number.
///
/// Of a busy host twenty thousand inodes are looked up, several times each. A Dictionary would take as long for it as a
/// tenth of all other work on them. This is a hash table with open addressing, half full at most. Inodes count upwards,
/// and who makes sockets can choose which ones to keep; the factor is random, so that nobody can choose those that
/// collide (Dietzfelbinger et al., A Reliable Randomized Algorithm for the Closest-Pair Problem, 1997).
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

    /// The place where the inode is, or would be. One call each: inlined everywhere, it makes the program some 10 KB larger.
    @inline(never)
    private func place(of inode: UInt64) -> Int {
        let mask = slots.count - 1
        var place = Int((inode &* Self.factor) >> shift)
        while slots[place].number >= 0 && slots[place].inode != inode { place = (place + 1) & mask }
        return place
    }

    /// The number that the inode got first.
    @inline(never)
    func first(_ inode: UInt64) -> Int? {
        let number = slots[place(of: inode)].number
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
        let place = place(of: inode)
        if slots[place].number >= 0 { return further[inode, default: []].append(number) }
        slots[place] = Slot(inode: inode, number: Int32(number))
        count += 1
        if count * 2 > slots.count { grow() }
    }

    private mutating func grow() {
        let old = slots
        slots = [Slot](repeating: Slot(), count: old.count * 2)
        shift -= 1
        for slot in old where slot.number >= 0 { slots[place(of: slot.inode)] = slot }
    }
}

/// How much is read for the names of containers in one run: users choose what their files hold, and how many containers
/// they have. Root's are not bounded here.
struct NameBudget {
    /// Bytes for each user. Reading and parsing that many as JSON takes some 200 ms.
    static let ofUser = 4 << 20
    /// Bytes for all users together: a user may own files as other users, too (subuid(5)).
    static let ofAllUsers = 32 << 20
    /// The largest JSON text of a user's.
    static let maxUserText = 1 << 20
    /// What a look-up counts even if it reads nothing: a user has some thousand of them.
    static let lookUp = 4 << 10

    private var spent: [UInt32: Int] = [:]
    private var spentByAll = 0

    /// How many bytes may still be read for an owner.
    func rest(of owner: UInt32) -> Int {
        owner == 0 ? .max : max(0, min(Self.ofUser - spent[owner, default: 0], Self.ofAllUsers - spentByAll))
    }

    mutating func spend(_ bytes: Int, of owner: UInt32) {
        guard owner != 0 else { return }
        spent[owner, default: 0] += bytes
        spentByAll += bytes
    }
}

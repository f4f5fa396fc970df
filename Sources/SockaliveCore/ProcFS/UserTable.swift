import SystemPackage

/// User names, read from the text of `/etc/passwd` (passwd(5)).
///
/// Not by getpwnam(3): a static program would need the machine's own NSS libraries for that.
/// Users that only a directory service knows are named by number.
public enum UserTable {
    public static func uid(of name: String, in passwd: some Sequence<UInt8>) -> UInt32? {
        for line in Array(passwd).split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: ":"), maxSplits: 3, omittingEmptySubsequences: false)
            guard fields.count == 4, fields[0].elementsEqual(name.utf8) else { continue }
            return fields[2].decimal()
        }
        return nil
    }

    /// The user's number: `name` itself if it is one, else from `/etc/passwd`; nil if nobody is called so.
    public static func uid(of name: String, passwd: FilePath = "/etc/passwd") -> UInt32? {
        if let number = name.utf8.decimal(UInt32.self) { return number }
        guard let folder = try? ProcFS(root: passwd.removingLastComponent()), let file = passwd.lastComponent,
            let uid = try? folder.read(file.string, { Self.uid(of: name, in: $0) })
        else { return nil }
        return uid
    }
}

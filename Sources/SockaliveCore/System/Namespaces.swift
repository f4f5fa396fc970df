import CSockalive
import SystemPackage

/// Kinds of namespaces that a process can get for itself.
public struct Namespaces: OptionSet, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    public static let mount = Namespaces(rawValue: SOCKALIVE_NEW_MOUNT.rawValue)
    public static let user = Namespaces(rawValue: SOCKALIVE_NEW_USER.rawValue)
    public static let pid = Namespaces(rawValue: SOCKALIVE_NEW_PID.rawValue)
    public static let network = Namespaces(rawValue: SOCKALIVE_NEW_NETWORK.rawValue)

    /// Moves this process into new namespaces; with `pid` it is the next child that moves.
    ///
    /// The corresponding C function is `unshare`. `user` needs a process of one thread.
    public func enter() throws(Errno) {
        let result = sockalive_unshare(Int32(bitPattern: rawValue))
        if result < 0 { throw Errno(rawValue: -result) }
    }
}

/// Has the kernel kill this process as soon as its parent is gone.
///
/// The corresponding C function is `prctl(PR_SET_PDEATHSIG)`. A parent that is gone already is not noticed.
public func dieWithParent() throws(Errno) {
    let result = sockalive_die_with_parent()
    if result < 0 { throw Errno(rawValue: -result) }
}

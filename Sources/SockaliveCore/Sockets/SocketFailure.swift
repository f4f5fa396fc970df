import SystemPackage

/// Why one socket could not be read or set.
package struct SocketFailure: Error, Equatable, Sendable {
    package enum Kind: BitwiseCopyable, Sendable {
        /// Rights are missing: another user, Yama, a security module, another tracer.
        case permission
        /// This kernel, this architecture or this kind of target does not support it.
        case unsupported
        /// Any other reason: the target has ended, or a call failed.
        case other
    }

    package let kind: Kind
    /// The error's name, as in errno(3): `EPERM`.
    package let code: String
    /// What went wrong, in one line. Names of other processes are escaped.
    package let message: String
    /// What the user can do about it.
    package let remedy: String?
    /// None of its processes has the socket any more. Only known where it was reached for.
    var isClosed = false

    init(_ kind: Kind, _ error: Errno, _ message: String, remedy: String? = nil) {
        self.init(kind, code: error.name, message, remedy: remedy)
    }

    init(_ kind: Kind, code: String, _ message: String, remedy: String?) {
        self.kind = kind
        self.code = code
        self.message = message
        self.remedy = remedy
    }

    static let overwritten = SocketFailure(
        .other, .ioError, "the options were set, but other values were read back",
        remedy: "something else sets them too: look for a program that fights over this socket")

    static let interfaceUnknown = SocketFailure(
        .unsupported, .noData,
        "--remote names an interface, and the table that was read does not tell the connection's",
        remedy: "use --source diag, for which the kernel needs the module tcp_diag, or --remote without the interface")

    /// Message and remedy in one line for the user.
    package var line: String {
        remedy.map { "\(message); \($0)" } ?? message
    }
}

import CSockalive
import Glibc
import SystemPackage

/// A duplicate of another process's descriptor, borrowed by pidfd_getfd(2).
///
/// It shares the open file description: its status flags are never touched. It is closed
/// at once, because while it is open the owner's close(2) sends no FIN.
///
/// What happens if this process dies while it holds one: the kernel closes it. The target was never
/// stopped, and each setsockopt is atomic; between two of them keepalive is on with values that
/// are partly the old ones, which the next run completes.
struct BorrowedSocket: ~Copyable, SocketOptions {
    let descriptor: Int32
    let inode: UInt64
    /// The user who made it.
    let owner: UInt32

    /// - Parameters:
    ///   - pidfd: the process, or the thread (PIDFD_THREAD), in whose table `fd` is looked up.
    ///   - identity: the socket that is expected under `fd`.
    /// - Throws: `Errno`; `staleNFSFileHandle` (ESTALE) where another file stands under the number by now.
    init(pidfd: Int32, fd: Int32, identity: SocketIdentity) throws {
        let copy = sockalive_pidfd_getfd(pidfd, fd)
        guard copy >= 0 else { throw Errno(rawValue: -copy) }
        // The number may have been reused since discovery: only the file itself says which it is.
        var status = stat()
        guard fstat(copy, &status) == 0, status.st_ino == identity.inode, status.st_mode & S_IFMT == S_IFSOCK,
            Self.is(copy, identity.cookie)
        else {
            close(copy)
            throw Errno.staleNFSFileHandle
        }
        descriptor = copy
        inode = identity.inode
        owner = status.st_uid
    }

    /// Whether it is the socket with that cookie, as far as both are known. The table lists the subflows of an MPTCP
    /// socket, each with a cookie of its own, under the inode of the socket that has them.
    private static func `is`(_ descriptor: Int32, _ expected: UInt64?) -> Bool {
        guard let expected, let cookie = option(descriptor, SO_COOKIE, like: UInt64(0)), cookie != expected else {
            return true
        }
        return option(descriptor, SO_PROTOCOL, like: Int32(0)) == multipath
    }

    /// SO_COOKIE; nil before Linux 4.12.
    var cookie: UInt64? { option(SO_COOKIE, like: UInt64(0)) }

    var isMultipath: Bool { option(SO_PROTOCOL, like: Int32(0)) == Self.multipath }

    /// IPPROTO_MPTCP
    private static let multipath: Int32 = 262

    /// An option of the level SOL_SOCKET; nil where this kernel or this socket has none.
    func option<Value: BitwiseCopyable>(_ name: Int32, like sample: Value) -> Value? {
        Self.option(descriptor, name, like: sample)
    }

    private static func option<Value: BitwiseCopyable>(_ descriptor: Int32, _ name: Int32, like sample: Value) -> Value?
    {
        var value = sample
        var length = socklen_t(MemoryLayout<Value>.size)
        return getsockopt(descriptor, SOL_SOCKET, name, &value, &length) == 0 ? value : nil
    }

    deinit {
        close(descriptor)
    }

    mutating func get(level: Int32, name: Int32, into value: UnsafeMutableRawBufferPointer) throws -> Int {
        var length = socklen_t(value.count)
        guard getsockopt(descriptor, level, name, value.baseAddress, &length) == 0 else {
            throw Errno(rawValue: errno)
        }
        return Int(length)
    }

    mutating func exchange(_ options: inout [OptionExchange]) throws {
        for index in options.indices { options[index].execute(on: descriptor) }
    }
}

extension OptionExchange {
    /// On a descriptor of this process.
    mutating func execute(on descriptor: Int32) {
        var length = socklen_t(MemoryLayout<Int32>.size)
        error = nil
        if var newValue, setsockopt(descriptor, level, name, &newValue, length) != 0 {
            error = Errno(rawValue: errno)
        } else if getsockopt(descriptor, level, name, &value, &length) != 0 {
            error = Errno(rawValue: errno)
        }
    }
}

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
    ///   - pidfd: the owner; it must lead its thread group.
    ///   - inode: the socket that is expected under `fd`.
    /// - Throws: `Errno`; `staleNFSFileHandle` (ESTALE) where another file stands under the number by now.
    init(pidfd: Int32, fd: Int32, inode: UInt64) throws {
        let copy = sockalive_pidfd_getfd(pidfd, fd)
        guard copy >= 0 else { throw Errno(rawValue: -copy) }
        // The number may have been reused since discovery: only the inode says which file it is.
        var status = stat()
        guard fstat(copy, &status) == 0, status.st_ino == inode, status.st_mode & S_IFMT == S_IFSOCK else {
            close(copy)
            throw Errno.staleNFSFileHandle
        }
        descriptor = copy
        self.inode = inode
        owner = status.st_uid
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
        for index in options.indices { options[index].carryOut(on: descriptor) }
    }
}

extension OptionExchange {
    /// On a descriptor of this process.
    mutating func carryOut(on descriptor: Int32) {
        var length = socklen_t(MemoryLayout<Int32>.size)
        error = nil
        if var newValue, setsockopt(descriptor, level, name, &newValue, length) != 0 {
            error = Errno(rawValue: errno)
        } else if getsockopt(descriptor, level, name, &value, &length) != 0 {
            error = Errno(rawValue: errno)
        }
    }
}

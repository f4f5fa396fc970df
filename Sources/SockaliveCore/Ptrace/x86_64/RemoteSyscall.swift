import SystemPackage

/// A system call to be made inside another process, with up to six arguments. Pure.
struct RemoteSyscall {
    enum Kind {
        case getsockopt, setsockopt, fcntl, close, mmap, munmap, tkill

        /// Its number on x86-64.
        var number64: UInt64 {
            switch self {
            case .getsockopt: 55
            case .setsockopt: 54
            case .fcntl: 72
            case .close: 3
            case .mmap: 9
            case .munmap: 11
            case .tkill: 200
            }
        }

        /// Its number on i386 from Linux 4.3 on: the arguments of socketcall(2) lie in memory, where others reach them.
        var directNumber32: UInt64 {
            switch self {
            case .getsockopt: 365
            case .setsockopt: 366
            default: number32.number
            }
        }

        /// Its number on i386, and for the socket calls that of socketcall(2) with their own (linux/net.h): kernels
        /// before 4.3 have no other.
        var number32: (number: UInt64, sub: UInt64?) {
            switch self {
            case .getsockopt: (102, 15)
            case .setsockopt: (102, 14)
            case .fcntl: (221, nil)  // fcntl64
            case .close: (6, nil)
            case .mmap: (192, nil)  // mmap2
            case .munmap: (91, nil)
            case .tkill: (238, nil)
            }
        }
    }

    /// How many 32-bit numbers socketcall(2) takes from memory.
    static let wordCount = 5

    let kind: Kind
    private let arguments: [UInt64]

    init(_ kind: Kind, _ arguments: UInt64...) {
        self.kind = kind
        self.arguments = arguments
    }

    init(_ kind: Kind, on descriptor: Int32, _ arguments: UInt64...) {
        self.kind = kind
        self.arguments = [UInt64(bitPattern: Int64(descriptor))] + arguments
    }

    /// An argument; 0 where it has not so many.
    subscript(index: Int) -> UInt64 { index < arguments.count ? arguments[index] : 0 }

    /// For socketcall(2).
    var words: [UInt32] { (0..<Self.wordCount).map { UInt32(truncatingIfNeeded: self[$0]) } }
}

/// What a system call returned.
enum SyscallResult: Equatable {
    case value(UInt64)
    case error(Errno)

    /// The last 4,095 numbers are errors (include/linux/err.h).
    init<Word: FixedWidthInteger & UnsignedInteger>(_ word: Word) {
        let maxErrno: Word = 4095
        self = word > .max - maxErrno ? .error(Errno(rawValue: Int32(0 &- word))) : .value(UInt64(word))
    }

    func get() throws(Errno) -> UInt64 {
        switch self {
        case .value(let value): return value
        case .error(let error): throw error
        }
    }
}

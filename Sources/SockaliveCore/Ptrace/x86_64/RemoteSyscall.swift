import CSockalive
import Glibc
import SystemPackage

/// A system call to make inside another process, with up to six arguments. Pure.
struct RemoteSyscall {
    enum Kind {
        case getsockopt, setsockopt, fcntl, close, mmap, munmap, tkill, rtSigreturn

        /// The number on x86-64.
        var number64: UInt64 {
            let call: Syscall64 =
                switch self {
                case .getsockopt: .getsockopt
                case .setsockopt: .setsockopt
                case .fcntl: .fcntl
                case .close: .close
                case .mmap: .mmap
                case .munmap: .munmap
                case .tkill: .tkill
                case .rtSigreturn: .rtSigreturn
                }
            return call.rawValue
        }

        /// The number on i386 since Linux 4.3. The arguments of socketcall(2) are in memory, which other threads can
        /// change.
        var directNumber32: UInt64 {
            switch self {
            case .getsockopt: Syscall32.getsockopt.rawValue
            case .setsockopt: Syscall32.setsockopt.rawValue
            default: number32.number
            }
        }

        /// The number on i386. For the socket calls it is that of socketcall(2) and a sub-number (linux/net.h): kernels
        /// before 4.3 have no other.
        var number32: (number: UInt64, sub: UInt64?) {
            let (call, sub): (Syscall32, Int32?) =
                switch self {
                case .getsockopt: (.socketcall, SYS_GETSOCKOPT)
                case .setsockopt: (.socketcall, SYS_SETSOCKOPT)
                case .fcntl: (.fcntl64, nil)
                case .close: (.close, nil)
                case .mmap: (.mmap2, nil)
                case .munmap: (.munmap, nil)
                case .tkill: (.tkill, nil)
                case .rtSigreturn: (.rtSigreturn, nil)
                }
            return (call.rawValue, sub.map { UInt64($0) })
        }
    }

    /// How many 32-bit words socketcall(2) reads from memory.
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

    /// An argument; 0 if there is none at the index.
    subscript(index: Int) -> UInt64 { index < arguments.count ? arguments[index] : 0 }

    /// The arguments for socketcall(2).
    var words: [UInt32] { (0..<Self.wordCount).map { UInt32(truncatingIfNeeded: self[$0]) } }
}

/// The result of a system call.
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

/// Instructions in a target's own code that a remote call uses.
struct SyscallGadgets: Equatable {
    /// Address and bytes of an instruction sequence. The bytes are checked again while the target is held.
    struct Gadget: Equatable {
        let address: UInt64
        let bytes: [UInt8]
    }

    let is32Bit: Bool
    /// The system call instruction; nil if not found.
    private(set) var call: Gadget?
    /// `call` continues to a `ret`.
    private(set) var returns = false
    /// Words that the code before the `ret` pops off the stack.
    private(set) var skipped: UInt32 = 0
    /// Loads the number of rt_sigreturn and calls it; nil if not found.
    private(set) var sigreturn: Gadget?

    init(is32Bit: Bool) {
        self.is32Bit = is32Bit
    }

    /// nil for a program in which no remote call is possible.
    init?(program: ELFProgram) {
        guard program == .amd64 || program == .i386 else { return nil }
        self.init(is32Bit: program == .i386)
    }

    /// Further search cannot improve it.
    var isComplete: Bool { returns && sigreturn != nil }

    /// Searches `bytes` of the target at `address` for missing gadgets.
    mutating func search(_ bytes: UnsafeRawBufferPointer, at address: UInt64) {
        let (instruction, ways, loads) = is32Bit ? Patterns.bits32 : Patterns.bits64
        var start = 0
        while !isComplete, let found = bytes.firstIndex(of: instruction, from: start) {
            start = found + 1
            let way = ways.first { bytes.holds(instruction + $0.rest, at: found) }
            if let way, !returns {
                call = Gadget(address: address + UInt64(found), bytes: instruction + way.rest)
                (returns, skipped) = (true, way.skipped)
            }
            call = call ?? Gadget(address: address + UInt64(found), bytes: instruction)
            let load = loads.first { bytes.holds($0, at: found - $0.count) }
            if let load, sigreturn == nil {
                sigreturn = Gadget(address: address + UInt64(found - load.count), bytes: load + instruction)
            }
        }
    }

    /// The call instruction; the bytes from it to a `ret`; the bytes before it that load rt_sigreturn's number.
    private enum Patterns {
        typealias Kind = ([UInt8], [(rest: [UInt8], skipped: UInt32)], [[UInt8]])

        static let bits64: Kind = (
            [0x0f, 0x05],  // syscall
            [([0xc3], 0)],
            [
                [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0],  // mov $15,%rax: glibc, musl, Go
                [0xb8, 0x0f, 0, 0, 0],  // mov $15,%eax
            ]
        )
        static let bits32: Kind = (
            [0xcd, 0x80],  // int $0x80
            [
                ([0x5d, 0x5a, 0x59, 0xc3], 3),  // pop %ebp, %edx, %ecx; ret: the vDSO
                ([0xc3], 0),
            ],
            [[0xb8, 0xad, 0, 0, 0]]  // mov $173,%eax: __kernel_rt_sigreturn
        )
    }
}

extension UnsafeRawBufferPointer {
    /// The index of the next pair of bytes.
    fileprivate func firstIndex(of pair: [UInt8], from start: Int) -> Int? {
        var start = start
        while start < count, let found = memchr(baseAddress! + start, Int32(pair[0]), count - start) {
            let index = UnsafeRawPointer(found) - baseAddress!
            if index + 1 < count, self[index + 1] == pair[1] { return index }
            start = index + 1
        }
        return nil
    }

    fileprivate func holds(_ wanted: [UInt8], at index: Int) -> Bool {
        index >= 0 && index + wanted.count <= count && self[index..<(index + wanted.count)].elementsEqual(wanted)
    }
}

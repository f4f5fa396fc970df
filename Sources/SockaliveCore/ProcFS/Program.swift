import CSockalive
import Glibc

/// The parts of `/proc/PID/maps` (proc_pid_maps(5)) that a remote call needs. Pure: bytes in, values out.
struct MemoryMap: Equatable {
    /// A mapping that is a thread's stack.
    struct Stack: Equatable {
        let span: Range<UInt64>
        /// The main thread's stack, which the kernel made at the start of the program.
        let isMain: Bool
    }

    /// Code that is likely to stay: mapped from a file or by the kernel, and not writable. The code of a just-in-time
    /// compiler is excluded.
    private(set) var code: [Range<UInt64>] = []

    /// The main thread's stack, and mappings with a guard page right below them. The C libraries put a thread's control
    /// block at the very end of such a mapping (checked while the thread is held). A goroutine's or a coroutine's stack
    /// is part of a heap: there the memory below the stack pointer may belong to another thread.
    private(set) var stacks: [Stack] = []

    private var guardEnd: UInt64 = 0
    private let startOfStack: UInt64?

    /// The kernel writes a line end in a path as `\012`, so each line is one mapping (fs/seq_file.c, seq_path).
    ///
    /// - Parameter startOfStack: ``ProcessStat/startOfStack``. The main stack is the mapping around it. The label
    ///   `[stack]` says nothing: before Linux 4.5 the map of a thread has it at the mapping with that thread's stack
    ///   pointer (fs/proc/task_mmu.c, vm_is_stack), which may be a coroutine's part of a heap.
    init(_ text: UnsafeBufferPointer<UInt8>, startOfStack: UInt64?) {
        self.startOfStack = startOfStack
        var rest = text[...]
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            if let mapping = Mapping(rest[..<end]) { add(mapping) }
            rest = rest[(end + 1)...]
        }
    }

    private mutating func add(_ mapping: Mapping) {
        let isMain = !mapping.isFile && startOfStack.map(mapping.span.contains) ?? false
        let isGuarded = !mapping.isFile && guardEnd == mapping.span.lowerBound
        switch mapping.rights {
        case "r-xp" where mapping.isFile || mapping.path.elementsEqual("[vdso]".utf8): code.append(mapping.span)
        case "rw-p" where isMain || isGuarded, "rwxp" where isMain || isGuarded:
            stacks.append(Stack(span: mapping.span, isMain: isMain))
        case "---p": guardEnd = mapping.span.upperBound
        default: break
        }
    }

    /// The stack that contains an address.
    func stack(at address: UInt64) -> Stack? {
        stacks.first { $0.span.lowerBound < address && address <= $0.span.upperBound }
    }
}

/// `start-end rwxp offset device inode   path`
private struct Mapping {
    let span: Range<UInt64>
    let rights: Substring
    let isFile: Bool
    let path: Slice<UnsafeBufferPointer<UInt8>>

    init?(_ line: Slice<UnsafeBufferPointer<UInt8>>) {
        var fields = Fields(line)
        guard let addresses = fields.next(), let dash = addresses.firstIndex(of: UInt8(ascii: "-")),
            let start = addresses[..<dash].hexadecimal(UInt64.self),
            let end = addresses[(dash + 1)...].hexadecimal(UInt64.self), start < end,
            let rights = fields.next(), rights.count == 4,
            fields.next() != nil, fields.next() != nil, let inode = fields.next()?.decimal(UInt64.self)
        else { return nil }
        span = start..<end
        self.rights = Substring(decoding: rights, as: UTF8.self)
        isFile = inode != 0
        path = fields.rest
    }
}

/// The kind of program, from the ELF header of its file (elf(5)).
enum ELFProgram: Equatable, Sendable {
    case amd64
    case i386
    /// x86-64 with 32-bit pointers.
    case x32
    case other(bits: Int)

    var bits: Int {
        switch self {
        case .amd64: 64
        case .i386, .x32: 32
        case .other(let bits): bits
        }
    }
}

extension ELFProgram {
    /// e_machine is at byte 18, in the byte order that EI_DATA gives.
    init?(header: [UInt8]) {
        guard header.count >= 20, header.starts(with: [0x7f] + Array("ELF".utf8)) else { return nil }
        let size = Int32(header[Int(EI_CLASS)])
        guard size == ELFCLASS32 || size == ELFCLASS64 else { return nil }
        let isBigEndian = Int32(header[Int(EI_DATA)]) == ELFDATA2MSB
        let machine = isBigEndian ? Int(header[18]) << 8 | Int(header[19]) : Int(header[19]) << 8 | Int(header[18])
        switch (size, Int32(machine)) {
        case (ELFCLASS64, EM_X86_64): self = .amd64
        case (ELFCLASS32, EM_X86_64): self = .x32
        case (ELFCLASS32, EM_386): self = .i386
        default: self = .other(bits: size == ELFCLASS64 ? 64 : 32)
        }
    }
}

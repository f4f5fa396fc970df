import CSockalive

/// One instruction of the kernel's BPF machine (the kernel's Documentation/bpf/standardization/instruction-set.rst).
/// Pure: an instruction is a value, and its bytes follow from it.
enum BPFInstruction: Equatable, Sendable {
    /// The register `r0` has results, `r1` to `r5` have arguments and are lost in a call, `r6` to `r9` are kept, and
    /// `r10` is the end of the stack frame.
    enum Register: UInt8, Sendable {
        case r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10
    }

    enum Operand: Equatable, Sendable {
        case register(Register)
        case constant(Int32)
    }

    /// The raw values are the size bits of the opcode.
    enum Width: UInt8, Sendable {
        case word = 0x00
        case half = 0x08
        case byte = 0x10
        case double = 0x18
    }

    /// 64-bit arithmetic. The raw values are the operation bits of the opcode.
    enum Arithmetic: UInt8, Sendable {
        case add = 0x00
        case and = 0x50
        case shiftLeft = 0x60
        case shiftRight = 0x70
        case move = 0xb0
    }

    /// Comparisons of 64 bits, without a sign. The raw values are the operation bits of the opcode.
    enum Condition: UInt8, Sendable {
        case equal = 0x10
        case notEqual = 0x50
        case greater = 0x20
        /// A bit that both have.
        case sharesBit = 0x40
    }

    /// The numbers of the kernel's functions (linux/bpf.h, enum bpf_func_id).
    enum Helper: Int32, Sendable {
        case mapLookup = 1
        case setsockopt = 49
        case getsockopt = 57
    }

    case compute(Arithmetic, Register, Operand)
    /// From this machine's byte order to big-endian, 32 bits.
    case toBigEndian32(Register)
    case load(Width, Register, from: Register, at: Int16)
    case store(Width, to: Register, at: Int16, Int32)
    case storeRegister(Width, to: Register, at: Int16, Register)
    /// Adds a register to 64 bits of memory, as one step.
    case atomicAdd(to: Register, at: Int16, Register)
    /// The descriptor of a map. This one takes two places.
    case loadMap(Register, descriptor: Int32)
    case jump(offset: Int16)
    case jumpIf(Condition, Register, Operand, offset: Int16)
    case call(Helper)
    case exit
}

extension BPFInstruction {
    /// The number of places of eight bytes.
    var length: Int {
        if case .loadMap = self { 2 } else { 1 }
    }

    /// The eight bytes of each place, in this machine's byte order.
    var encoded: [bpf_insn] {
        switch self {
        case .compute(let operation, let register, .constant(let value)):
            [.make(Class.arithmetic64 | operation.rawValue, register, immediate: value)]
        case .compute(let operation, let register, .register(let source)):
            [.make(Class.arithmetic64 | Self.fromRegister | operation.rawValue, register, source)]
        case .toBigEndian32(let register): [.make(Class.arithmetic32 | 0xd0 | 0x08, register, immediate: 32)]
        case .load(let width, let register, let address, let offset):
            [.make(Class.load | Self.memory | width.rawValue, register, address, offset)]
        case .store(let width, let address, let offset, let value):
            [.make(Class.store | Self.memory | width.rawValue, address, nil, offset, immediate: value)]
        case .storeRegister(let width, let address, let offset, let register):
            [.make(Class.storeRegister | Self.memory | width.rawValue, address, register, offset)]
        case .atomicAdd(let address, let offset, let register):
            [.make(Class.storeRegister | Self.atomic | Width.double.rawValue, address, register, offset)]
        case .loadMap(let register, let descriptor):
            [
                .make(Width.double.rawValue, register, mode: UInt8(BPF_PSEUDO_MAP_FD), immediate: descriptor),
                .make(0),
            ]
        case .jump(let offset): [.make(Class.jump, nil, nil, offset)]
        case .jumpIf(let condition, let register, .constant(let value), let offset):
            [.make(Class.jump | condition.rawValue, register, nil, offset, immediate: value)]
        case .jumpIf(let condition, let register, .register(let other), let offset):
            [.make(Class.jump | Self.fromRegister | condition.rawValue, register, other, offset)]
        case .call(let helper): [.make(Class.jump | 0x80, immediate: helper.rawValue)]
        case .exit: [.make(Class.jump | 0x90)]
        }
    }

    /// The low three bits of the opcode.
    private enum Class {
        static let load: UInt8 = 0x01, store: UInt8 = 0x02, storeRegister: UInt8 = 0x03
        static let arithmetic32: UInt8 = 0x04, jump: UInt8 = 0x05, arithmetic64: UInt8 = 0x07
    }

    private static let fromRegister: UInt8 = 0x08
    private static let memory: UInt8 = 0x60
    private static let atomic: UInt8 = 0xc0
}

extension bpf_insn {
    /// - Parameter mode: what stands where the source register does, if that is no register.
    fileprivate static func make(
        _ code: UInt8, _ register: BPFInstruction.Register? = nil, _ source: BPFInstruction.Register? = nil,
        _ offset: Int16 = 0, mode: UInt8 = 0, immediate: Int32 = 0
    ) -> bpf_insn {
        bpf_insn(
            code: code, dst_reg: register?.rawValue ?? 0, src_reg: source?.rawValue ?? mode, off: offset,
            imm: immediate)
    }
}

import Glibc
import Testing

@testable import SockaliveCore

/// Loads the guard's program into this machine's kernel, and compares it with what bpftool(8) reads back.
@Suite struct LiveGuardProgramTests {
    private static let settings = GuardSettings(
        ports: [5633], request: KeepaliveRequest(), overrides: false, place: "--cgroup /none", path: "/none")

    private static func load() throws -> LoadedGuard {
        try LoadedGuard(settings, GuardDiagnosis(procfs: try ProcFS()))
    }

    static let isLoadable = (try? load()) != nil

    private static let bpftool = ["/usr/sbin/bpftool", "/sbin/bpftool", "/usr/bin/bpftool"]
        .first { (path: String) in access(path, X_OK) == 0 }

    private static func dump(_ id: UInt32) throws -> String {
        let program = try #require(bpftool)
        let (ours, theirs) = try Channel.pair()
        defer { ours.close() }
        let child = try ChildProcess.spawn(
            program, [program, "prog", "dump", "xlated", "id", "\(id)", "opcodes"],
            descriptors: [(STDOUT_FILENO, theirs.descriptor)])
        theirs.close()
        let output = ours.readToEnd()
        #expect(child.wait() == .exited(0))
        return output
    }

    /// As bpftool writes it. Where the kernel's verifier replaces an instruction by others, nil.
    private static func words(_ instruction: BPFInstruction) -> String? {
        func operand(_ operand: BPFInstruction.Operand) -> String {
            switch operand {
            case .register(let register): "r\(register.rawValue)"
            case .constant(let value): "\(value)"
            }
        }
        func address(_ register: BPFInstruction.Register, _ offset: Int16) -> String {
            "(r\(register.rawValue) \(offset < 0 ? "" : "+")\(offset))"
        }
        let types: [BPFInstruction.Width: String] = [.byte: "u8", .half: "u16", .word: "u32", .double: "u64"]
        switch instruction {
        case .compute(let operation, let register, let value):
            let signs: [BPFInstruction.Arithmetic: String] = [
                .add: "+=", .and: "&=", .shiftLeft: "<<=", .shiftRight: ">>=", .move: "=",
            ]
            return "r\(register.rawValue) \(signs[operation]!) \(operand(value))"
        case .toBigEndian32(let register): return "r\(register.rawValue) = be32 r\(register.rawValue)"
        // The context's fields lie elsewhere in the kernel.
        case .load(_, _, from: .r6, _): return nil
        case .load(let width, let register, let base, let offset):
            return "r\(register.rawValue) = *(\(types[width]!) *)\(address(base, offset))"
        case .store(let width, let base, let offset, let value):
            return "*(\(types[width]!) *)\(address(base, offset)) = \(value)"
        case .storeRegister(let width, let base, let offset, let register):
            return "*(\(types[width]!) *)\(address(base, offset)) = r\(register.rawValue)"
        case .atomicAdd(let base, let offset, let register):
            return "lock *(u64 *)\(address(base, offset)) += r\(register.rawValue)"
        case .loadMap(let register, _): return "r\(register.rawValue) = map[id:"
        // Jumps are longer over what the verifier puts in; a lookup in an array is put in itself.
        case .jump: return "goto pc"
        case .jumpIf(let condition, let register, let value, _):
            let signs: [BPFInstruction.Condition: String] = [
                .equal: "==", .notEqual: "!=", .greater: ">", .sharesBit: "&",
            ]
            let other =
                if case .constant(let number) = value { "0x" + String(number, radix: 16) } else { operand(value) }
            return "if r\(register.rawValue) \(signs[condition]!) \(other) goto pc"
        case .call(.mapLookup): return nil
        case .call(.setsockopt): return "call bpf_sock_ops_setsockopt"
        case .call(.getsockopt): return "call bpf_sock_ops_getsockopt"
        case .exit: return "exit"
        }
    }

    @Test(
        .enabled(if: isLoadable, "no BPF program can be loaded here: that takes root, and Linux 5.9"),
        .enabled(if: bpftool != nil, "bpftool is missing (Debian's package bpftool)"))
    func `the program is the one that bpftool reads in the kernel`() throws {
        let loaded = try Self.load()
        let lines = try Self.dump(try BPF.programInfo(loaded.program).id).split(separator: "\n")
            .filter { $0.contains(": (") }.map { $0.split(separator: ") ", maxSplits: 1).last.map(String.init) ?? "" }
        let program = GuardProgram.instructions(
            control: loaded.maps.control.descriptor, settings: loaded.maps.settings.descriptor)
        // Each instruction is there in this order; between them stands only what the verifier put in.
        var rest = lines[...]
        for (place, instruction) in program.enumerated() {
            guard let words = Self.words(instruction) else { continue }
            let found = rest.firstIndex { $0.hasPrefix(words) }
            let index = try #require(
                found, "instruction \(place), \(words), is not in \(rest.joined(separator: " | "))")
            // A lookup in an array is nine instructions, and a field of the context up to six.
            #expect(index - rest.startIndex <= 10, "\(words): \(rest.prefix(index - rest.startIndex))")
            rest = rest[(index + 1)...]
        }
        #expect(rest.isEmpty)
    }

    @Test(.enabled(if: isLoadable, "no BPF program can be loaded here: that takes root, and Linux 5.9"))
    func `what the verifier says is in the error`() throws {
        // Reads a register that nothing was written to.
        let error = #expect(throws: BPF.LoadError.self) {
            try BPF.load([.compute(.move, .r0, .register(.r3)), .exit], "test", license: "Apache-2.0")
        }
        #expect(error?.log.contains("R3 !read_ok") == true)
        let failure = GuardDiagnosis(procfs: try ProcFS())
            .failure("the kernel does not take the program", try #require(error).errno, log: error?.log ?? "")
        #expect(failure.line.contains("R3 !read_ok"))
    }
}

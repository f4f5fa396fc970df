import CSockalive
import Testing

@testable import SockaliveCore

/// Each kind of instruction against bytes that are taken apart by hand: opcode, registers (source in the upper half),
/// offset, immediate; all in the byte order of x86-64 and arm64.
@Suite struct BPFInstructionTests {
    private static func bytes(_ instructions: [BPFInstruction]) -> [UInt8] {
        instructions.flatMap(\.encoded).flatMap { withUnsafeBytes(of: $0) { Array($0) } }
    }

    static let annotated: [(BPFInstruction, [UInt8])] = [
        // r7 = r0: ALU64 7, register 8, MOV b0.
        (.compute(.move, .r7, .register(.r0)), [0xbf, 0x07, 0, 0, 0, 0, 0, 0]),
        // r2 = 1.
        (.compute(.move, .r2, .constant(1)), [0xb7, 0x02, 0, 0, 1, 0, 0, 0]),
        // r2 += -4: the immediate is signed.
        (.compute(.add, .r2, .constant(-4)), [0x07, 0x02, 0, 0, 0xfc, 0xff, 0xff, 0xff]),
        // r2 += r7.
        (.compute(.add, .r2, .register(.r7)), [0x0f, 0x72, 0, 0, 0, 0, 0, 0]),
        // r1 &= 0xffff.
        (.compute(.and, .r1, .constant(0xffff)), [0x57, 0x01, 0, 0, 0xff, 0xff, 0, 0]),
        // r2 >>= 3, without a sign.
        (.compute(.shiftRight, .r2, .constant(3)), [0x77, 0x02, 0, 0, 3, 0, 0, 0]),
        // r2 >>= r1.
        (.compute(.shiftRight, .r2, .register(.r1)), [0x7f, 0x12, 0, 0, 0, 0, 0, 0]),
        // r2 <<= 3.
        (.compute(.shiftLeft, .r2, .constant(3)), [0x67, 0x02, 0, 0, 3, 0, 0, 0]),
        // r1 = be32 r1: ALU 4, END d0, to big-endian 8.
        (.toBigEndian32(.r1), [0xdc, 0x01, 0, 0, 32, 0, 0, 0]),
        // r1 = *(u32 *)(r6 + 64): LDX 1, MEM 60, W 0.
        (.load(.word, .r1, from: .r6, at: 64), [0x61, 0x61, 64, 0, 0, 0, 0, 0]),
        // r2 = *(u8 *)(r2 + 32): B 10.
        (.load(.byte, .r2, from: .r2, at: 32), [0x71, 0x22, 32, 0, 0, 0, 0, 0]),
        // r2 = *(u16 *)(r2 + 32): H 8.
        (.load(.half, .r2, from: .r2, at: 32), [0x69, 0x22, 32, 0, 0, 0, 0, 0]),
        // r1 = *(u64 *)(r0 + 0): DW 18.
        (.load(.double, .r1, from: .r0, at: 0), [0x79, 0x01, 0, 0, 0, 0, 0, 0]),
        // *(u32 *)(r10 - 4) = 1: ST 2.
        (.store(.word, to: .r10, at: -4, 1), [0x62, 0x0a, 0xfc, 0xff, 1, 0, 0, 0]),
        // *(u32 *)(r10 - 4) = r1: STX 3.
        (.storeRegister(.word, to: .r10, at: -4, .r1), [0x63, 0x1a, 0xfc, 0xff, 0, 0, 0, 0]),
        // lock *(u64 *)(r0 + 0) += r1: STX 3, ATOMIC c0, DW 18, operation ADD 0.
        (.atomicAdd(to: .r0, at: 0, .r1), [0xdb, 0x10, 0, 0, 0, 0, 0, 0]),
        // r1 = map[fd:258]: LD 0, IMM 0, DW 18, source 1 is BPF_PSEUDO_MAP_FD; a second place for the upper 32 bits.
        (.loadMap(.r1, descriptor: 258), [0x18, 0x11, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        // goto +2: JMP 5, JA 0.
        (.jump(offset: 2), [0x05, 0, 2, 0, 0, 0, 0, 0]),
        // if r0 == 0 goto +3: JEQ 10.
        (.jumpIf(.equal, .r0, .constant(0), offset: 3), [0x15, 0, 3, 0, 0, 0, 0, 0]),
        // if r1 != 5 goto -1: JNE 50.
        (.jumpIf(.notEqual, .r1, .constant(5), offset: -1), [0x55, 0x01, 0xff, 0xff, 5, 0, 0, 0]),
        // if r8 & 1 goto +1: JSET 40.
        (.jumpIf(.sharesBit, .r8, .constant(1), offset: 1), [0x45, 0x08, 1, 0, 1, 0, 0, 0]),
        // if r1 != r2 goto +1: register 8.
        (.jumpIf(.notEqual, .r1, .register(.r2), offset: 1), [0x5d, 0x21, 1, 0, 0, 0, 0, 0]),
        // call bpf_setsockopt: CALL 80.
        (.call(.setsockopt), [0x85, 0, 0, 0, 49, 0, 0, 0]),
        (.exit, [0x95, 0, 0, 0, 0, 0, 0, 0]),
    ]

    @Test(arguments: annotated) func `an instruction has the bytes of the specification`(
        instruction: BPFInstruction, bytes: [UInt8]
    ) {
        #expect(Self.bytes([instruction]) == bytes)
        #expect(instruction.length * 8 == bytes.count)
    }

    @Test func `the numbers of the kernel's functions are those of its header`() {
        #expect(BPFInstruction.Helper.mapLookup.rawValue == Int32(BPF_FUNC_map_lookup_elem.rawValue))
        #expect(BPFInstruction.Helper.setsockopt.rawValue == Int32(BPF_FUNC_setsockopt.rawValue))
        #expect(BPFInstruction.Helper.getsockopt.rawValue == Int32(BPF_FUNC_getsockopt.rawValue))
    }
}

@Suite struct BPFAssemblerTests {
    @Test func `a jump counts places, and the descriptor of a map takes two`() throws {
        var program = BPFAssembler<String>()
        program.label("start")
        program.jump(to: "end", if: .equal, .r0, .constant(0))
        program.add(.loadMap(.r1, descriptor: 7))
        program.jump(to: "start")
        program.label("end")
        program.add(.exit)
        #expect(
            try program.instructions() == [
                .jumpIf(.equal, .r0, .constant(0), offset: 3), .loadMap(.r1, descriptor: 7), .jump(offset: -4), .exit,
            ])
    }

    @Test func `a label that is missing, or there twice, is a mistake`() {
        var program = BPFAssembler<String>()
        program.jump(to: "end")
        #expect(throws: BPFAssembler<String>.Mistake.missing("end")) { try program.instructions() }
        program.label("end")
        program.label("end")
        #expect(throws: BPFAssembler<String>.Mistake.twice("end")) { try program.instructions() }
    }

    @Test func `a jump over more than its 16 bits is a mistake`() {
        var program = BPFAssembler<String>()
        program.jump(to: "end")
        for _ in 0..<32768 { program.add(.exit) }
        program.label("end")
        #expect(throws: BPFAssembler<String>.Mistake.tooFar("end")) { try program.instructions() }
    }
}

@Suite struct GuardSettingsTests {
    private static func settings(
        ports: Set<UInt16>? = [5633], overrides: Bool = false, place: String = "--unit agent.service",
        _ request: KeepaliveRequest = KeepaliveRequest()
    ) -> GuardSettings {
        GuardSettings(
            ports: ports, request: request, overrides: overrides, place: place, path: "/system.slice/agent.service")
    }

    static let all = [
        settings(), settings(ports: nil), settings(ports: [1, 7, 8, 5633, 65535], overrides: true),
        settings(KeepaliveRequest(firewallTimeout: Seconds(5))),
        settings(KeepaliveRequest(idle: 17, interval: 3, count: 5, userTimeout: 90_000)),
        settings(KeepaliveRequest(firewallTimeout: Seconds(1800), userTimeout: 1_800_000)),
    ]

    @Test(arguments: all) func `settings come out of a map as they went in`(settings: GuardSettings) throws {
        let bytes = GuardLayout.encode(settings)
        #expect(bytes.count == GuardLayout.size)
        let read = try #require(GuardLayout.decode(bytes))
        #expect(read.ports == settings.ports && read.overrides == settings.overrides)
        #expect(read.request.wanted == settings.request.wanted)
        #expect(read.request.firewallTimeout == settings.request.firewallTimeout)
        #expect(read.request.isExact == settings.request.isExact)
        #expect(read.place == settings.place && read.path == settings.path)
    }

    @Test func `each value has its place`() {
        let bytes = GuardLayout.encode(
            Self.settings(ports: [9], KeepaliveRequest(idle: 17, interval: 3, count: 5, userTimeout: 1000)))
        // Version; flags: a user timeout, exact; the values; the firewall's hour; port 9 is bit 1 of the second byte.
        let words: [UInt32] = [1, 4 + 8, 17, 3, 5, 1000, 3600, GuardProgram.fingerprint]
        #expect(bytes.prefix(32).elementsEqual(words.flatMap { withUnsafeBytes(of: $0.littleEndian) { Array($0) } }))
        #expect(bytes[32..<(32 + 8192)].enumerated().filter { $0.element != 0 }.map(\.offset) == [1])
        #expect(bytes[33] == 2)
    }

    @Test func `what another version wrote is not read, and a long text is cut`() {
        var bytes = GuardLayout.encode(Self.settings(place: String(repeating: "é", count: 4000)))
        #expect(GuardLayout.decode(bytes)?.place.isEmpty == false)
        bytes[0] = 2
        #expect(GuardLayout.decode(bytes) == nil)
        #expect(GuardLayout.decode([]) == nil)
    }
}

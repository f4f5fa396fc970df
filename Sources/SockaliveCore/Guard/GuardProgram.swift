import CSockalive
import Glibc

/// The program that gives each new connection of a cgroup its keepalive (BPF_PROG_TYPE_SOCK_OPS). Pure: instructions.
///
/// The kernel runs it when a connection is established, in connect(2) or before accept(2) has it (net/ipv4/tcp_input.c,
/// tcp_init_transfer). It reads two maps: in `control` which of the two settings is valid, and counters; in `settings`
/// what ``GuardLayout`` describes. New settings go to the place that is not valid, and then one store makes it valid.
enum GuardProgram {
    /// The places of `control`, 64 bits each.
    enum Control: UInt32, CaseIterable {
        /// Which place of `settings` is valid: 0 or 1. Only the lowest bit is read, so that no store is seen in part.
        case selected
        /// Connections that got keepalive.
        case treated
        /// Connections whose program had chosen keepalive itself.
        case kept
        /// Connections whose options the kernel refused to read or set.
        case failed
    }

    private enum Label {
        case established, matches, set, isTreated, isKept, hasFailed, count, end
    }

    private typealias Assembler = BPFAssembler<Label>

    /// The license decides which functions of the kernel may be called. Those here are open to every one.
    static let license = "Apache-2.0"
    /// At most 15 bytes (BPF_OBJ_NAME_LEN).
    static let name = "sockalive_guard"

    /// - Parameters:
    ///   - control: the descriptor of that map.
    ///   - settings: the descriptor of that map.
    static func instructions(control: Int32, settings: Int32) -> [BPFInstruction] {
        var program = Assembler()
        // r6 is the context (struct bpf_sock_ops), and r7 will be the settings.
        program.add(
            .compute(.move, .r6, .register(.r1)),
            .load(.word, .r1, from: .r6, at: Context.operation))
        program.jump(to: .established, if: .equal, .r1, .constant(Int32(BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)))
        program.jump(to: .end, if: .notEqual, .r1, .constant(Int32(BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)))
        program.label(.established)
        program.add(.store(.word, to: .r10, at: scratch, Int32(Control.selected.rawValue)))
        lookUp(control, &program)
        program.add(
            .load(.double, .r1, from: .r0, at: 0),
            .compute(.and, .r1, .constant(1)),
            .storeRegister(.word, to: .r10, at: scratch, .r1))
        lookUp(settings, &program)
        program.add(.compute(.move, .r7, .register(.r0)))
        matchPorts(&program)
        program.label(.matches)
        keepOwnChoice(&program)
        program.label(.set)
        setOptions(&program)
        count(control, &program)
        program.label(.end)
        // 1 lets the connection be. The reply for other programs stays as it is.
        program.add(.compute(.move, .r0, .constant(1)), .exit)
        do {
            return try program.instructions()
        } catch {
            preconditionFailure("\(error)")
        }
    }

    /// A hash of the program's bytes (FNV-1a).
    static let fingerprint: UInt32 = instructions(control: 0, settings: 0).flatMap(\.encoded)
        .flatMap { withUnsafeBytes(of: $0) { Array($0) } }
        .reduce(0x811c_9dc5) { ($0 ^ UInt32($1)) &* 0x0100_0193 }

    /// Fields of struct bpf_sock_ops (linux/bpf.h), which never move.
    private enum Context {
        static let operation: Int16 = 0
        static let remotePort: Int16 = 64
        static let localPort: Int16 = 68
    }

    /// Four bytes of the stack, for a key or a value of an option.
    private static let scratch: Int16 = -4

    /// r0 = the map's value for the key on the stack.
    private static func lookUp(_ map: Int32, _ program: inout Assembler) {
        program.add(
            .loadMap(.r1, descriptor: map),
            .compute(.move, .r2, .register(.r10)),
            .compute(.add, .r2, .constant(Int32(scratch))),
            .call(.mapLookup))
        // It always is there. The kernel's verifier wants to see that it was asked.
        program.jump(to: .end, if: .equal, .r0, .constant(0))
    }

    private static func matchPorts(_ program: inout Assembler) {
        program.add(.load(.word, .r8, from: .r7, at: GuardLayout.flagsOffset))
        program.jump(to: .matches, if: .sharesBit, .r8, .constant(Int32(GuardLayout.Flags.anyPort.rawValue)))
        program.add(.load(.word, .r1, from: .r6, at: Context.localPort))
        testPort(&program)
        program.jump(to: .matches, if: .sharesBit, .r2, .constant(1))
        // This one is in network byte order, in the upper half on a little-endian machine.
        program.add(.load(.word, .r1, from: .r6, at: Context.remotePort), .toBigEndian32(.r1))
        testPort(&program)
        program.add(.compute(.and, .r2, .constant(1)))
        program.jump(to: .end, if: .equal, .r2, .constant(0))
    }

    /// The lowest bit of r2 = whether the port in r1 is one of the settings.
    private static func testPort(_ program: inout Assembler) {
        program.add(
            // The verifier has to see that the place is within the map.
            .compute(.and, .r1, .constant(0xffff)),
            .compute(.move, .r2, .register(.r1)),
            .compute(.shiftRight, .r2, .constant(3)),
            .compute(.add, .r2, .register(.r7)),
            .load(.byte, .r2, from: .r2, at: GuardLayout.portsOffset),
            .compute(.and, .r1, .constant(7)),
            .compute(.shiftRight, .r2, .register(.r1)))
    }

    /// Ends where the program has set SO_KEEPALIVE before the connection was established. Where its idle time is short
    /// enough, set by itself or by the machine, only SO_KEEPALIVE is missing: the other values belong to that idle time.
    private static func keepOwnChoice(_ program: inout Assembler) {
        program.jump(to: .set, if: .sharesBit, .r8, .constant(Int32(GuardLayout.Flags.overrides.rawValue)))
        program.add(.store(.word, to: .r10, at: scratch, 0))
        option(.getsockopt, SOL_SOCKET, SO_KEEPALIVE, onStack, &program)
        program.add(.load(.word, .r1, from: .r10, at: scratch))
        program.jump(to: .isKept, if: .notEqual, .r1, .constant(0))
        option(.getsockopt, Int32(IPPROTO_TCP), TCP_KEEPIDLE, onStack, &program)
        program.add(
            .load(.word, .r1, from: .r10, at: scratch),
            .load(.word, .r2, from: .r7, at: GuardLayout.idleOffset))
        program.jump(to: .set, if: .greater, .r1, .register(.r2))
        program.add(.store(.word, to: .r10, at: scratch, 1))
        option(.setsockopt, SOL_SOCKET, SO_KEEPALIVE, onStack, &program)
        program.jump(to: .isTreated)
    }

    private static let onStack: (BPFInstruction.Register, Int16) = (.r10, scratch)

    /// TCP_KEEPIDLE comes last, as in ``KeepalivePlan``: if the timer runs already, that sets it anew.
    private static func setOptions(_ program: inout Assembler) {
        program.add(.store(.word, to: .r10, at: scratch, 1))
        option(.setsockopt, SOL_SOCKET, SO_KEEPALIVE, onStack, &program)
        for (name, offset) in [
            (TCP_KEEPINTVL, GuardLayout.intervalOffset), (TCP_KEEPCNT, GuardLayout.countOffset),
            (TCP_KEEPIDLE, GuardLayout.idleOffset),
        ] {
            option(.setsockopt, Int32(IPPROTO_TCP), name, (.r7, offset), &program)
        }
        program.add(.compute(.and, .r8, .constant(Int32(GuardLayout.Flags.setsUserTimeout.rawValue))))
        program.jump(to: .isTreated, if: .equal, .r8, .constant(0))
        option(.setsockopt, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, (.r7, GuardLayout.userTimeoutOffset), &program)
    }

    /// One option of four bytes, at a register plus an offset.
    private static func option(
        _ helper: BPFInstruction.Helper, _ level: Int32, _ name: Int32,
        _ value: (register: BPFInstruction.Register, offset: Int16), _ program: inout Assembler
    ) {
        program.add(
            .compute(.move, .r1, .register(.r6)),
            .compute(.move, .r2, .constant(level)),
            .compute(.move, .r3, .constant(name)),
            .compute(.move, .r4, .register(value.register)),
            .compute(.add, .r4, .constant(Int32(value.offset))),
            .compute(.move, .r5, .constant(4)),
            .call(helper))
        program.jump(to: .hasFailed, if: .notEqual, .r0, .constant(0))
    }

    private static func count(_ control: Int32, _ program: inout Assembler) {
        for (label, counter) in [(Label.isTreated, Control.treated), (.isKept, .kept), (.hasFailed, .failed)] {
            program.label(label)
            program.add(.store(.word, to: .r10, at: scratch, Int32(counter.rawValue)))
            if counter != .failed { program.jump(to: .count) }
        }
        program.label(.count)
        lookUp(control, &program)
        program.add(.compute(.move, .r1, .constant(1)), .atomicAdd(to: .r0, at: 0, .r1))
    }
}

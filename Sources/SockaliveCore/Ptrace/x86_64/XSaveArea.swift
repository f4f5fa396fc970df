import CSockalive
import Glibc
import SystemPackage

/// The floating-point and vector registers of a stopped thread, in the format of rt_sigreturn (asm/sigcontext.h;
/// arch/x86/kernel/fpu/signal.c).
///
/// They are in a buffer of ``capacity`` bytes, aligned to 64. It contains the XSAVE area, and before it room for the
/// old 387 layout of a 32-bit frame.
struct XSaveArea {
    /// The part of the buffer to which a frame points.
    let span: Range<Int>
    /// Size of the XSAVE area as PTRACE_GETREGSET returned it; PTRACE_SETREGSET takes the same.
    private let whole: Int

    static let capacity = 16384

    private static let area = 128
    private static let oldLayout = 112  // struct _fpstate_32 has it before the FXSAVE area
    private static let oldRegisters = 108
    private static let legacySize = 512  // FXSAVE area, before the XSAVE header
    private static let headerSize = 64
    private static let softwareBytes = 464  // struct _fpx_sw_bytes, the FXSAVE area's last 48 bytes
    private static let magic: (first: UInt32, second: UInt32) = (FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2)
    /// AMX tile data. A frame has room for it only after arch_prctl(2) has permitted it.
    private static let dynamicFeatures: UInt64 = 1 << 18
    private static let registerSets: (xsave: UInt, old: UInt) = (UInt(NT_X86_XSTATE), UInt(NT_PRFPREG))

    /// The end of each feature's part of an XSAVE area. It depends on the processor only. CPUID takes about 10 us under
    /// a hypervisor, so it is called once, and while no thread is held.
    static let featureEnds: [Int] = (0..<63).map { $0 < 2 ? 0 : Int(sockalive_xsave_end($0)) }

    /// Reads the registers, and adds the fields that rt_sigreturn checks.
    ///
    /// - Throws: `Errno`; EOVERFLOW if the area is larger than the result of ptrace.
    init(of tracee: Tracee, is32Bit: Bool, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        let area = UnsafeMutableRawBufferPointer(rebasing: bytes[Self.area...])
        // Leaves room for the second magic word. The size must be a multiple of 8 (ptrace_regset).
        let withoutMagic = UnsafeMutableRawBufferPointer(rebasing: area.dropLast(8))
        whole = try tracee.registerSet(Self.registerSets.xsave, into: withoutMagic)
        let granted = area.loadUnaligned(fromByteOffset: Self.softwareBytes, as: UInt64.self)  // XCR0
        let present = area.loadUnaligned(fromByteOffset: Self.legacySize, as: UInt64.self)  // XSTATE_BV
        let features = granted & (~Self.dynamicFeatures | present)
        let size = Self.xsaveSize(features)
        guard size <= whole else { throw .overflow }
        let end = Self.area + size + MemoryLayout<UInt32>.size
        span = (is32Bit ? Self.area - Self.oldLayout : Self.area)..<end
        Self.writeSoftwareBytes(area, features: features, size: size, extendedSize: span.count)
        if is32Bit { try Self.readOldLayout(of: tracee, bytes) }
    }

    /// Writes the registers back as they were read.
    func restore(to tracee: Tracee, from bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        let area = UnsafeMutableRawBufferPointer(rebasing: bytes[Self.area..<(Self.area + whole)])
        try tracee.setRegisterSet(Self.registerSets.xsave, from: area)
    }

    /// The size of an XSAVE area with these features, in the standard format.
    private static func xsaveSize(_ features: UInt64) -> Int {
        featureEnds.indices.reduce(legacySize + headerSize) { end, feature in
            features >> UInt64(feature) & 1 == 1 ? max(end, featureEnds[feature]) : end
        }
    }

    /// Writes struct _fpx_sw_bytes. If the size exceeds the thread's permission, or the second magic word is missing,
    /// the kernel restores only the FXSAVE part, and the upper halves of the vector registers are lost
    /// (check_xstate_in_sigframe).
    private static func writeSoftwareBytes(
        _ area: UnsafeMutableRawBufferPointer, features: UInt64, size: Int, extendedSize: Int
    ) {
        let words: [UInt32] = [
            magic.first, UInt32(extendedSize), UInt32(truncatingIfNeeded: features),
            UInt32(truncatingIfNeeded: features >> 32), UInt32(size), 0, 0, 0, 0, 0, 0, 0,
        ]
        words.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: area[softwareBytes...]).copyMemory(from: $0) }
        area.storeBytes(of: magic.second, toByteOffset: size, as: UInt32.self)
    }

    /// A 32-bit frame has its x87 registers in the old layout, followed by status and magic (0: FXSAVE follows).
    private static func readOldLayout(of tracee: Tracee, _ bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
        let start = area - oldLayout
        let old = UnsafeMutableRawBufferPointer(rebasing: bytes[start..<(start + oldRegisters)])
        _ = try tracee.registerSet(registerSets.old, into: old)
        let status = old.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
        bytes.storeBytes(of: status, toByteOffset: area - 4, as: UInt16.self)
        bytes.storeBytes(of: 0, toByteOffset: area - 2, as: UInt16.self)
    }
}

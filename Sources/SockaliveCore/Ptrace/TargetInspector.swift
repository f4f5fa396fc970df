import CSockalive
import Glibc
import SystemPackage

/// What is known of a target without stopping it: its threads, its code, its stacks.
///
/// The target partly controls this text and memory. Everything that matters is checked again while the thread is held.
struct TargetInspector {
    let procfs: ProcFS
    let holder: SocketHolder
    let inode: UInt64
    let rights: OwnRights
    var hasPtraceMethod = Method.ptrace.isForThisArchitecture

    private static let chunkSize = 256 << 10
    /// Longer than any instruction sequence in the search.
    private static let chunkOverlap = 16
    private static let maxCodeSize = 256 << 20
    /// 65,530 mappings (vm.max_map_count) of usual length are 10 MB; of the greatest length, 270 MB.
    private static let maxMapsSize = 32 << 20

    /// - Parameters:
    ///   - known: the gadgets of this process, if an earlier call found them. They are kept even where this one fails:
    ///     they belong to the process's memory, not to a thread.
    ///   - excluded: threads that cannot be held.
    /// - Throws: ``RemoteSocket/AttachError``.
    func target(
        known: inout SyscallGadgets?, besides excluded: Set<Int32> = []
    ) throws(RemoteSocket.AttachError) -> RemoteTarget {
        // First of all: what else stands in the way may pass, and this does not.
        guard hasPtraceMethod else { throw RemoteSocket.AttachError(reason: .unsupported, errno: .notSupported) }
        if Freezer(procfs: procfs).isFrozen(holder.pid) {
            // Its registers would be changed, and nobody could restore them before it is thawed.
            throw RemoteSocket.AttachError(reason: .frozen, errno: .resourceBusy)
        }
        let choice = ThreadChoice(
            procfs: procfs, pid: holder.pid, fd: holder.fd, inode: inode, excluded: excluded)
        // Any thread serves to read the memory map. The main thread may be a zombie, which has none.
        let any = try choosing { try choice.best(nil) }
        let map = try inspecting(any) { () throws(RemoteSocket.AttachError) in try self.map(of: any) }
        let tid = try choosing { try choice.best(map) }
        return try inspecting(tid) { () throws(RemoteSocket.AttachError) in try target(tid, map, &known) }
    }

    /// What fails because the thread ends meanwhile says nothing about the process.
    private func inspecting<Value>(
        _ tid: Int32, _ body: () throws(RemoteSocket.AttachError) -> Value
    ) throws(RemoteSocket.AttachError) -> Value {
        do {
            return try body()
        } catch {
            guard procfs.hasEnded(tid, of: holder.pid) else { throw error }
            throw RemoteSocket.AttachError(reason: .ended, errno: .noSuchProcess)
        }
    }

    /// A thread that ends loses its memory first, and shows an empty map then.
    private func map(of tid: Int32) throws(RemoteSocket.AttachError) -> MemoryMap {
        let map = try preparing {
            let stat = try procfs.read("\(holder.pid)/task/\(tid)/stat") { ProcessStat($0) }
            return try procfs.read("\(holder.pid)/task/\(tid)/maps", limit: Self.maxMapsSize) {
                MemoryMap($0, startOfStack: stat?.startOfStack)
            }
        }
        if map.code.isEmpty, procfs.hasEnded(tid, of: holder.pid) {
            throw RemoteSocket.AttachError(reason: .ended, errno: .noSuchProcess)
        }
        return map
    }

    private func target(
        _ tid: Int32, _ map: MemoryMap, _ known: inout SyscallGadgets?
    ) throws(RemoteSocket.AttachError) -> RemoteTarget {
        let thread = "\(holder.pid)/task/\(tid)"
        let status = try preparing { try procfs.status("\(thread)") }
        let isFiltered = status.seccomp != 0
        if rights.leavesFiltersToParent, isFiltered || procfs.threadCount(of: holder.pid) != 1 {
            // Fail before any thread is stopped. The filter is checked again while the thread is held.
            throw RemoteSocket.AttachError(reason: .seccomp, errno: .notPermitted)
        }
        let gadgets = if let known { known } else { try findGadgets(thread: thread, map) }
        known = gadgets
        return RemoteTarget(
            procfs: procfs, holder: holder, inode: inode, tid: tid, gadgets: gadgets, status: status,
            stacks: map.stacks,
            spareDescriptor: spareDescriptor(thread, status.descriptorTableSize ?? 0), rights: rights)
    }

    private func choosing<Value>(_ body: () throws -> Value) throws(RemoteSocket.AttachError) -> Value {
        do {
            return try body()
        } catch {
            let error = error as? Errno ?? .ioError
            throw RemoteSocket.AttachError(
                reason: error == .staleNFSFileHandle ? .descriptor : .chooseThread,
                errno: error == .noSuchFileOrDirectory ? .noSuchProcess : error)
        }
    }

    private func preparing<Value>(_ body: () throws -> Value) throws(RemoteSocket.AttachError) -> Value {
        do {
            return try body()
        } catch {
            let error = error as? Errno ?? .ioError
            let isGone = error == .noSuchFileOrDirectory || error == .noSuchProcess
            throw RemoteSocket.AttachError(
                reason: isGone ? .chooseThread : .prepare,
                errno: isGone ? .noSuchProcess : error)
        }
    }

    private func findGadgets(thread: String, _ map: MemoryMap) throws(RemoteSocket.AttachError) -> SyscallGadgets {
        let header = try preparing { try procfs.prefix(of: "\(thread)/exe", count: 20) }
        guard var gadgets = ELFProgram(header: header).flatMap(SyscallGadgets.init(program:)) else {
            throw RemoteSocket.AttachError(reason: .unsupported, errno: .notSupported)
        }
        let memory = try openMemory(of: thread)
        var budget = Self.maxCodeSize
        var hasRead = false
        // Start at the top: vDSO, loader and libc are there, and they are smaller than the program.
        for span in map.code.reversed() where !gadgets.isComplete {
            do throws(Errno) {
                if try search(span, of: memory, &gadgets, &budget) { hasRead = true }
            } catch .noSuchProcess {
                throw RemoteSocket.AttachError(reason: .chooseThread, errno: .noSuchProcess)
            } catch {
                throw RemoteSocket.AttachError(reason: .memory, errno: error)
            }
        }
        guard gadgets.call != nil else {
            guard hasRead || map.code.isEmpty else { throw RemoteSocket.AttachError(reason: .memory, errno: .ioError) }
            throw RemoteSocket.AttachError(reason: .prepare, errno: .execFormatError)
        }
        return gadgets
    }

    private func openMemory(of thread: String) throws(RemoteSocket.AttachError) -> TargetMemory {
        do {
            return try TargetMemory(procfs: procfs, thread: thread, isWritten: false)
        } catch {
            // A sandbox may have no such file.
            if error == .noSuchFileOrDirectory, procfs.identity(thread) != nil {
                throw RemoteSocket.AttachError(reason: .memory, errno: error)
            }
            return try preparing { throw error }
        }
    }

    /// - Returns: whether anything could be read.
    private func search(
        _ span: Range<UInt64>, of memory: TargetMemory, _ gadgets: inout SyscallGadgets, _ budget: inout Int
    ) throws(Errno) -> Bool {
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.chunkSize, alignment: 16)
        defer { chunk.deallocate() }
        var start = span.lowerBound
        var hasRead = false
        while start < span.upperBound, budget > 0, !gadgets.isComplete {
            let size = Int(min(UInt64(chunk.count), span.upperBound - start))
            let got: Int
            do throws(Errno) {
                got = try memory.readSome(start, into: UnsafeMutableRawBufferPointer(rebasing: chunk[..<size]))
            } catch .badAddress {
                return hasRead  // unmapped meanwhile
            }
            hasRead = true
            gadgets.search(UnsafeRawBufferPointer(rebasing: chunk[..<got]), at: start)
            guard size == chunk.count else { return true }
            budget -= size
            start += UInt64(size - Self.chunkOverlap)
        }
        return hasRead
    }

    /// A free number near the end of the descriptor table that the kernel has allocated already.
    private func spareDescriptor(_ thread: String, _ tableSize: Int) -> Int32 {
        let limit = procfs.text("\(thread)/limits").flatMap(Self.descriptorLimit) ?? tableSize
        let size = min(tableSize, limit, Int(Int32.max))
        let free = stride(from: size - 1, through: size / 2, by: -1).first { number in
            var status = stat()
            return fstatat(procfs.root.rawValue, "\(thread)/fd/\(number)", &status, AT_SYMLINK_NOFOLLOW) != 0
                && errno == ENOENT
        }
        return Int32(free ?? size)
    }

    /// `Max open files  soft  hard  files` (proc_pid_limits(5)); nil if there is no limit.
    static func descriptorLimit(_ limits: [UInt8]) -> Int? {
        let line = limits.split(separator: UInt8(ascii: "\n")).first { $0.starts(with: "Max open files ".utf8) }
        return line?.dropFirst("Max open files ".utf8.count).split(separator: UInt8(ascii: " ")).first?.decimal()
    }
}

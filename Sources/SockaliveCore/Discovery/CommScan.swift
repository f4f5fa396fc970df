import Glibc
import SystemPackage

/// Finds, among all processes, those that go by one of some names.
///
/// This is most of what a run costs on a busy host: two small questions to each of a thousand processes,
/// 10 µs together. So no text is made, nothing is allocated per process unless there are many names, and several
/// processors share the work.
struct CommScan: ProcessScan {
    /// A descriptor of `/proc`.
    let root: Int32
    private let names: [UntrustedText]
    /// The names of a large file of rules. A few are compared faster than one is looked up.
    private let manyNames: Set<UntrustedText>?
    /// What the kernel leaves in comm of the longer ones.
    private let manyCutNames: Set<UntrustedText>
    /// Processes whose link to the executable hung. They are judged by comm alone.
    private let hung: Set<Int32>
    /// All are.
    private let isByComm: Bool

    /// The kernel cuts comm at 15 bytes (TASK_COMM_LEN).
    static let maxCommLength = 15
    private static let maxCompared = 16

    init(root: Int32, names: [UntrustedText], hung: Set<Int32> = [], isByComm: Bool = false) {
        self.root = root
        self.names = names
        self.hung = hung
        self.isByComm = isByComm
        let areMany = names.count > Self.maxCompared
        manyNames = areMany ? Set(names) : nil
        let cutNames = areMany ? names.filter { $0.bytes.count >= Self.maxCommLength } : []
        manyCutNames = Set(cutNames.map { UntrustedText($0.bytes.prefix(Self.maxCommLength)) })
    }

    /// Whether comm, or the base name of the executable, is one of the names: comm is cut, and a program may
    /// change it, so that the file's name counts too.
    func matches(_ pid: Int32) -> Bool {
        ScanMemory.with { if case .no = answer(pid, $0, thread: 0) { false } else { true } }
    }

    private static let commSize = 16

    func answer(_ pid: Int32, _ memory: ScanMemory, thread: Int) -> ScanAnswer {
        let room = Bytes(rebasing: memory.text[..<Self.commSize])
        let text = Bytes(rebasing: memory.text[Self.commSize...])
        var count = memory.read(pid, "/comm", of: root, into: room)
        if count < 0 { return ScanAnswer(error: errno) }
        // The text and a line end.
        let comm = room[..<max(0, count - 1)]
        if isWanted(comm) { return .yes }
        // Whether a longer name may stand behind it.
        let isCutOff = isCutOff(comm)
        if isByComm || hung.contains(pid) { return isCutOff ? .yes : .no }
        // The link waits for the end of an execve(2) of the process (exec_update_lock), which may wait for a file server.
        WorkerProgress.scan(pid, thread: thread)
        defer { WorkerProgress.scan(0, thread: thread) }
        let link = memory.path(pid, "/exe")
        count = text.withMemoryRebound(to: CChar.self) { readlinkat(root, link, $0.baseAddress!, $0.count) }
        if count < 0 {
            // Where the link may not be read, the process counts as meant if its own word says so. Its descriptors will
            // say that they may not be read, either.
            let error = errno
            guard Errno(rawValue: error).isPermission else { return ScanAnswer(error: error) }
            if isCutOff { return .yes }
            let isLoader = comm.isLoader
            count = memory.read(pid, "/cmdline", of: root, into: text)
            return count > 0 && namesOneOf(text[..<count], isLoader ? .max : 1) ? .yes : .no
        }
        let program = text[..<count].withoutDeletedSuffix.baseName
        if isWanted(program) { return .yes }
        guard isCutOff || program.isLoader else { return .no }
        // A script, or a program that the dynamic loader was told to run: its name is among the arguments.
        count = memory.read(pid, "/cmdline", of: root, into: text)
        return count > 0 && namesOneOf(text[..<count], .max) ? .yes : .no
    }

    /// Whether one of the first arguments, or its base name, is one of the names. Each argument ends with a zero byte.
    private func namesOneOf(_ arguments: Slice<Bytes>, _ count: Int) -> Bool {
        arguments.split(separator: 0).prefix(count).contains { isWanted($0) || isWanted($0.baseName) }
    }

    private typealias Bytes = UnsafeMutableBufferPointer<UInt8>

    private func isWanted(_ name: Slice<Bytes>) -> Bool {
        if let manyNames { return manyNames.contains(UntrustedText(name)) }
        return names.contains { $0.bytes.count == name.count && $0.bytes.elementsEqual(name) }
    }

    /// What the kernel leaves in comm of a longer name.
    private func isCutOff(_ comm: Slice<Bytes>) -> Bool {
        guard comm.count == Self.maxCommLength else { return false }
        if manyNames != nil { return manyCutNames.contains(UntrustedText(comm)) }
        return names.contains { $0.bytes.starts(with: comm) }
    }
}

extension BidirectionalCollection<UInt8> {
    /// What stands behind the last slash.
    var baseName: SubSequence {
        suffix(from: lastIndex(of: UInt8(ascii: "/")).map { index(after: $0) } ?? startIndex)
    }

    /// The base name of a dynamic loader, such as `ld-linux-x86-64.so.2` or `ld-2.31.so`.
    var isLoader: Bool { starts(with: "ld-".utf8) || starts(with: "ld.so".utf8) }

    /// The kernel adds ` (deleted)` to the path of an unlinked file (fs/d_path.c).
    var withoutDeletedSuffix: SubSequence {
        let marker: StaticString = " (deleted)"
        let bytes = UnsafeBufferPointer(start: marker.utf8Start, count: marker.utf8CodeUnitCount)
        return suffix(bytes.count).elementsEqual(bytes) ? dropLast(bytes.count) : self[...]
    }
}

extension ProcessSelection {
    /// No name and no number selects: every process is asked for its executable.
    var looksAtAll: Bool { anyProcess || isByFilter }

    /// As far as comm tells, which is cut and can be changed.
    func mayMean(_ pid: Int32, comm: ArraySlice<UInt8>) -> Bool {
        func isName(_ name: some Collection<UInt8>) -> Bool { comm.elementsEqual(name.prefix(CommScan.maxCommLength)) }
        if pids.contains(pid) || names.contains(where: { isName($0.bytes) }) { return true }
        guard isByFilter else { return anyProcess }
        return executable.map { isName(Array($0.utf8).baseName) } ?? true
    }

    /// Whether some process that it means may be there, and `/proc` does not show it (proc(5), hidepid).
    func isHidden(_ procfs: ProcFS) -> Bool {
        if uid == geteuid() { return false }
        let isByNumber = !pids.isEmpty && names.isEmpty && !anyProcess
        let numbers = isByNumber ? pids : [1]
        return numbers.contains { number in
            let exists = kill(number, 0) == 0 || errno == EPERM
            return exists && procfs.text("\(number)/comm") == nil
        }
    }
}

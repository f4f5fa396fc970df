import Glibc
import SystemPackage

/// Finds, among all processes, those whose cgroup may be meant. For a machine whose cgroup file system does not show
/// all cgroups: there each process has to be asked.
final class CGroupScan: ProcessScan {
    let root: Int32
    private let selections: [PlaceSelection]
    /// Many processes have one text.
    private let answers = Locked<[[UInt8]: Bool]>([:])

    init(root: Int32, selections: [PlaceSelection]) {
        self.root = root
        self.selections = selections
    }

    func answer(_ pid: Int32, _ memory: ScanMemory, thread: Int) -> ScanAnswer {
        let count = memory.read(pid, "/cgroup", of: root, into: memory.text)
        if count < 0 {
            // What may not be read is not "no": whoever asks this process once more reports it.
            return Errno(rawValue: errno).isPermission ? .yes : ScanAnswer(error: errno)
        }
        // The text may be longer.
        if count == memory.text.count { return .yes }
        let key = Array(memory.text[..<count])
        if let known = answers.withLock({ $0[key] }) { return known ? .yes : .no }
        let path = CGroupPath(procfs: key)
        let matches = path.map { path in selections.contains { $0.mayMean(path) } } ?? false
        answers.withLock { $0[key] = matches }
        return matches ? .yes : .no
    }
}

import SystemPackage

/// Whether processes are frozen: `docker pause`, `podman pause` and `systemctl freeze` freeze a cgroup (cgroups(7)).
///
/// In a frozen cgroup of version 2 a thread may stop for a tracer, but no call of it ever returns. In version 1 no
/// thread stops at all.
struct Freezer {
    let procfs: ProcFS
    /// nil if there is no `/sys`, as in a chroot.
    let sysfs: ProcFS?

    init(procfs: ProcFS, sysfs: ProcFS?) {
        self.procfs = procfs
        self.sysfs = sysfs
    }

    /// - Parameter procfs: a fixture has no `/sys`.
    init(procfs: ProcFS) {
        self.init(procfs: procfs, sysfs: procfs.isOwn ? try? ProcFS(root: "/sys") : nil)
    }

    static let remedy = "thaw it (docker unpause, podman unpause, systemctl thaw, or 0 in its cgroup.freeze)"

    func isFrozen(_ pid: Int32) -> Bool {
        if let sysfs, Self.isFrozen(procfs.text("\(pid)/cgroup") ?? [], sysfs) { return true }
        return waitsFrozen(pid)
    }

    /// Version 2 has the state in `cgroup.events`, version 1 in `freezer.state`. Both count the freezing of a parent.
    private static func isFrozen(_ cgroup: [UInt8], _ sysfs: ProcFS) -> Bool {
        for line in cgroup.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: ":"), maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let path = String(decoding: fields[2], as: UTF8.self)
            if fields[0].elementsEqual("0".utf8) {
                let folders = ["fs/cgroup", "fs/cgroup/unified"]
                // A loop, because a lazy sequence may read the file twice and get two results.
                for folder in folders {
                    guard let events = sysfs.text("\(folder)\(path)/cgroup.events") else { continue }
                    if String(decoding: events, as: UTF8.self).contains("frozen 1") { return true }
                    break
                }
            } else if fields[1].elementsEqual("freezer".utf8) {
                let state = sysfs.text("fs/cgroup/freezer\(path)/freezer.state") ?? []
                if state.starts(with: "FR".utf8) { return true }
            }
        }
        return false
    }

    /// A container sees its own part of the cgroups only, and no other container's. A thread that is frozen by version
    /// 2 sleeps interruptibly in the kernel's signal handling (kernel/signal.c, do_freezer_trap, which get_signal calls
    /// and may have inlined). No other thread does: a stopped one is in state T, a traced one in t.
    private func waitsFrozen(_ pid: Int32) -> Bool {
        guard let place = procfs.text("\(pid)/wchan"),
            place.elementsEqual("get_signal".utf8) || place.elementsEqual("do_freezer_trap".utf8),
            let stat = try? procfs.read("\(pid)/stat", { ProcessStat($0) })
        else { return false }
        return stat.state == "S"
    }
}

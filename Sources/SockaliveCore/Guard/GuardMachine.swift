import SystemPackage

/// What a guard needs of the machine.
struct GuardMachine {
    let procfs: ProcFS
    let diagnosis: GuardDiagnosis
    let hierarchy: CGroupHierarchy

    /// - Throws: if this machine has no guards.
    init() throws(GuardFailure) {
        let procfs: ProcFS
        do {
            procfs = try ProcFS()
        } catch {
            throw GuardFailure(.unsupported, "/proc cannot be read (\(error))", remedy: "mount it")
        }
        // Each guard takes some descriptors, and the usual limit of 1,024 is for programs that use select(2).
        try? OpenFiles.raiseLimit()
        try self.init(procfs: procfs)
    }

    init(procfs: ProcFS) throws(GuardFailure) {
        self.procfs = procfs
        diagnosis = GuardDiagnosis(procfs: procfs)
        if let failure = diagnosis.oldKernel { throw failure }
        do throws(Errno) {
            hierarchy = try CGroupHierarchy(procfs: procfs)
        } catch {
            throw GuardDiagnosis.noCGroups(error)
        }
    }
}

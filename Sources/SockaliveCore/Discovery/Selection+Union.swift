/// One selection that finds at least what two find. What the two share stays a filter.
extension Selection {
    func union(_ other: Selection) -> Selection {
        Selection(processes: processes.union(other.processes), sockets: sockets.union(other.sockets))
    }
}

extension ProcessSelection {
    fileprivate func union(_ other: ProcessSelection) -> ProcessSelection {
        let isForAll = anyProcess || other.anyProcess
        // Neither names nor numbers: the executable alone selects, and it selects among all.
        let isByFile = namesNobody || other.namesNobody
        let executable = executable == other.executable ? executable : nil
        let all = isForAll || (isByFile && !(namesNobody && other.namesNobody && executable != nil))
        var union = ProcessSelection(
            pids: all ? [] : pids.union(other.pids), anyProcess: all,
            executable: executable, uid: uid == other.uid ? uid : nil)
        if !all { union.names = names + other.names.filter { !names.contains($0) } }
        return union
    }

    private var namesNobody: Bool { names.isEmpty && pids.isEmpty && !anyProcess }
}

extension SocketSelection {
    fileprivate func union(_ other: SocketSelection) -> SocketSelection {
        var union = SocketSelection(ports: nil)
        if let ports, let others = other.ports { union.ports = ports.union(others) }
        union.remote = remote == other.remote ? remote : nil
        union.listeners = listeners || other.listeners
        return union
    }
}

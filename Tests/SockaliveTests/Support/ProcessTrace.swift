import Foundation

/// The state in `/proc` that an injection could change in a process.
struct ProcessTrace: Equatable {
    let tracer: String
    let isStopped: Bool
    let descriptors: [String]
    let pendingSignals: [String]

    init(of pid: Int32) throws {
        let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8).split(separator: "\n")
        func value(_ key: String) -> String {
            let line = status.first { $0.hasPrefix("\(key):") } ?? ""
            return line.dropFirst(key.count + 1).trimmingCharacters(in: .whitespaces)
        }
        tracer = value("TracerPid")
        isStopped = value("State").first.map { "Tt".contains($0) } ?? true
        descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").sorted()
        pendingSignals = [value("SigPnd"), value("ShdPnd")]
    }
}

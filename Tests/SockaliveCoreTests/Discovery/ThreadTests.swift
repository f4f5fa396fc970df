import CSockalive
import Glibc
import Testing

@testable import SockaliveCore

@Suite struct LiveThreadTests {
    /// The processor and affinity of the calling thread (proc_pid_stat(5), proc_pid_status(5)).
    private struct Place {
        var processor: Substring?
        var allowed: Substring?

        init() {
            guard let procfs = try? ProcFS(), let stat = procfs.text("thread-self/stat"),
                let status = procfs.text("thread-self/status")
            else { return }
            processor = String(decoding: stat, as: UTF8.self).split(separator: " ").dropLast(13).last
            allowed = String(decoding: status, as: UTF8.self).split(separator: "\n")
                .first { $0.hasPrefix("Cpus_allowed:") }
        }
    }

    /// The place of a new thread that is started on another processor.
    private func start() throws -> Place {
        var place = Place()
        var thread = pthread_t()
        let status = withUnsafeMutablePointer(to: &place) { place in
            sockalive_start_on_other_cpu(
                &thread,
                { place in
                    place!.assumingMemoryBound(to: Place.self).pointee = Place()
                    return nil
                }, place)
        }
        try #require(status == 0)
        // Busy-wait: a sleeping thread would leave its processor to the new thread.
        let start = ContinuousClock.now
        while start.duration(to: .now) < .milliseconds(2) {}
        pthread_join(thread, nil)
        return place
    }

    @Test(.enabled(if: sockalive_processors() > 1, "there is one processor"))
    func `a thread starts on another processor, and may then run on all of its creator's`() throws {
        let pairs = try (0..<40).map { _ in (maker: Place(), made: try start()) }
        #expect(pairs.allSatisfy { $0.made.allowed == $0.maker.allowed && $0.made.allowed != nil })
        // The kernel may move either thread before it looks.
        #expect(pairs.count { $0.made.processor != $0.maker.processor } > pairs.count / 2)
    }
}

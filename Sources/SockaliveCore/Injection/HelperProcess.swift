import CSockalive
import Glibc
import SystemPackage

/// The helper's side: it becomes a process of the targets' owner, and answers requests until the channel ends.
struct HelperProcess {
    let channel: HelperChannel
    let direct: DirectSocketAccess

    /// Rights first, then the first request: nothing of a target is opened before.
    func run(as owner: Owner) -> Never {
        // The terminal's stop would leave a target standing; the parent, which it stops as well, waits for nobody then.
        _ = sockalive_hold_job_control()
        do {
            try keepOnlyWhatIsNeeded()
        } catch {
            _ = channel.send(HelperReply.failed(error as? Errno ?? .ioError).message)
            _exit(1)
        }
        let error = owner.groups.withUnsafeBufferPointer {
            sockalive_become(owner.uid, owner.gid, $0.baseAddress, $0.count)
        }
        guard error == 0 else {
            _ = channel.send(HelperReply.failed(Errno(rawValue: -error)).message)
            _exit(1)
        }
        let rights = OwnRights(procfs: direct.procfs, parent: direct.rights)
        let access = DirectSocketAccess(
            procfs: direct.procfs, method: direct.method, handles: direct.handles, rights: rights)
        WorkerProgress.beat = Self.beat(channel)
        guard channel.send(HelperReply.done.message) else { _exit(0) }
        while let request = channel.receiveRequest() {
            guard case .open(let holder, let identity) = request else { break }
            answer(access, identity, holder)
        }
        _exit(0)
    }

    /// Some twenty times a second at most.
    private static func beat(_ channel: HelperChannel) -> () -> Void {
        var last = ContinuousClock.now
        return {
            guard .now - last > .milliseconds(50) else { return }
            last = .now
            _ = channel.send(HelperReply.busy.message)
        }
    }

    /// One answer for each request: whatever fails before the socket is open answers that request, and whatever fails
    /// afterwards the one to let it go.
    private func answer(_ access: DirectSocketAccess, _ identity: SocketIdentity, _ holder: SocketHolder) {
        let reply: HelperReply
        do {
            let result = try access.apply(ChannelOperation(channel: channel), to: identity, through: holder)
            reply = .released(
                crashSafe: result.crashSafe, pausedMicroseconds: result.pausedMicroseconds,
                restartedWait: result.restartedWait)
        } catch {
            reply = HelperReply(error)
        }
        if !channel.send(reply.message) { _exit(0) }
    }

    /// Not the lock, whose holder must be able to die without this process; not the terminal or the pipe that others
    /// wait at the end of.
    private func keepOnlyWhatIsNeeded() throws {
        var needed = Set(direct.handles.values.compactMap(\.descriptor))
        needed.formUnion([channel.descriptor, direct.procfs.root.rawValue])
        for descriptor in try direct.procfs.numbers(in: "self/fd") where !needed.contains(descriptor) {
            close(descriptor)
        }
        // The lowest free numbers: 0, 1 and 2. Where there is no /dev/null nothing is written to them anyway.
        for _ in 0...2 { _ = open("/dev/null", O_RDWR) }
    }
}

/// Executes the requests of the channel on an open socket, until the request to release it.
private struct ChannelOperation: SocketOperation {
    let channel: HelperChannel

    func run(on socket: inout some SocketOptions & ~Copyable) throws {
        guard channel.send(HelperReply.done.message) else { return }
        while let request = channel.receiveRequest() {
            let reply: HelperReply
            do {
                switch request {
                case .get(let level, let name, let size):
                    var value = [UInt8](repeating: 0, count: size)
                    let count = try value.withUnsafeMutableBytes { try socket.get(level: level, name: name, into: $0) }
                    reply = .value(Array(value.prefix(count)))
                case .exchange(var options):
                    try socket.exchange(&options)
                    reply = .exchanged(options.map { ($0.value, $0.error) })
                case .release, .open: return
                }
            } catch {
                reply = HelperReply(error)
            }
            guard channel.send(reply.message) else { return }
        }
    }
}

extension HelperReply {
    fileprivate init(_ error: any Error) {
        switch error {
        case let attachError as RemoteSocket.AttachError: self = .refused(attachError)
        case let error as PidfdError: self = .failed(error.errno)
        case is SocketFailure: self = .otherTable
        default: self = .failed(error as? Errno ?? .ioError)
        }
    }
}

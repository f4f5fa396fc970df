import CSockalive
import Glibc
import SystemPackage

/// The worker's side: it becomes a process of the targets' owner, and answers requests until the channel ends.
struct WorkerProcess {
    let channel: WorkerChannel
    let local: LocalReach

    /// Rights first, then the first request: nothing of a target is opened before.
    func run(as owner: Owner) -> Never {
        // The terminal's stop would leave a target standing; the parent, which it stops as well, waits for nobody then.
        _ = sockalive_hold_job_control()
        do {
            try keepOnlyWhatIsNeeded()
        } catch {
            _ = channel.send(WorkerReply.failed(error as? Errno ?? .ioError).message)
            _exit(1)
        }
        let error = owner.groups.withUnsafeBufferPointer {
            sockalive_become(owner.uid, owner.gid, $0.baseAddress, $0.count)
        }
        guard error == 0 else {
            _ = channel.send(WorkerReply.failed(Errno(rawValue: -error)).message)
            _exit(1)
        }
        let rights = OwnRights(procfs: local.procfs, parent: local.rights)
        let access = LocalReach(
            procfs: local.procfs, method: local.method, handles: local.handles, rights: rights)
        guard channel.send(WorkerReply.done.message) else { _exit(0) }
        while let request = channel.receiveRequest() {
            guard case .open(let holder, let identity) = request else { break }
            answer(access, identity, holder)
        }
        _exit(0)
    }

    /// One answer for each request: whatever fails before the socket is open answers that request, and whatever fails
    /// afterwards the one to let it go.
    private func answer(_ access: LocalReach, _ identity: SocketIdentity, _ holder: SocketHolder) {
        let reply: WorkerReply
        do {
            let result = try access.apply(Serving(channel: channel), to: identity, through: holder)
            reply = .released(crashSafe: result.crashSafe, pausedMicroseconds: result.pausedMicroseconds)
        } catch {
            reply = WorkerReply(error)
        }
        if !channel.send(reply.message) { _exit(0) }
    }

    /// Not the lock, whose holder must be able to die without this process; not the terminal or the pipe that others
    /// wait at the end of.
    private func keepOnlyWhatIsNeeded() throws {
        var needed = Set(local.handles.values.compactMap(\.descriptor))
        needed.formUnion([channel.descriptor, local.procfs.root.rawValue])
        for descriptor in try local.procfs.numbers(in: "self/fd") where !needed.contains(descriptor) {
            close(descriptor)
        }
        // The lowest free numbers: 0, 1 and 2. Where there is no /dev/null nothing is written to them anyway.
        for _ in 0...2 { _ = open("/dev/null", O_RDWR) }
    }
}

/// Does on an open socket what the channel asks for, until it is to be let go.
private struct Serving: SocketOperation {
    let channel: WorkerChannel

    func run(on socket: inout some SocketOptions & ~Copyable) throws {
        guard channel.send(WorkerReply.done.message) else { return }
        while let request = channel.receiveRequest() {
            let reply: WorkerReply
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
                reply = WorkerReply(error)
            }
            guard channel.send(reply.message) else { return }
        }
    }
}

extension WorkerReply {
    fileprivate init(_ error: any Error) {
        switch error {
        case let attachError as RemoteSocket.AttachError: self = .refused(attachError)
        case is SocketFailure: self = .otherTable
        default: self = .failed(error as? Errno ?? .ioError)
        }
    }
}

/// One end of the way between the two processes: messages, whole or not at all (SOCK_SEQPACKET, unix(7)).
struct WorkerChannel {
    let descriptor: Int32

    static func pair() throws(Errno) -> (WorkerChannel, WorkerChannel) {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw Errno(rawValue: errno) }
        return (WorkerChannel(descriptor: ends[0]), WorkerChannel(descriptor: ends[1]))
    }

    func close() {
        _ = Glibc.close(descriptor)
    }

    /// False where the other end is gone.
    func send(_ message: WorkerMessage) -> Bool {
        let bytes = message.bytes
        while true {
            if Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count { return true }
            if errno != EINTR { return false }
        }
    }

    /// nil where the other end is gone, or what it sent is no request.
    func receiveRequest() -> WorkerRequest? { receive().flatMap(WorkerRequest.init) }

    /// nil where there was none in time.
    func receiveReply(within time: Duration) -> WorkerReply? {
        let deadline = ContinuousClock.now + time
        while true {
            var event = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let left = max(0, (deadline - .now).milliseconds)
            let status = poll(&event, 1, Int32(left))
            if status > 0 { return receive().flatMap(WorkerReply.init) }
            // A signal is heard between two sockets.
            if status == 0 || errno != EINTR { return nil }
        }
    }

    private func receive() -> WorkerMessage? {
        withUnsafeTemporaryAllocation(byteCount: WorkerMessage.maxBytes, alignment: 8) { buffer in
            while true {
                let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
                if count > 0 { return WorkerMessage(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
                if count == 0 || errno != EINTR { return nil }
            }
        }
    }
}

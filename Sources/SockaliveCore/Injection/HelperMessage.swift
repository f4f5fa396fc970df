import SystemPackage

/// A message between this process and a helper: numbers, and the bytes of an option's value. Pure.
///
/// What comes from a helper is checked like what comes from any other process: its user may have killed it, and
/// nothing rests on its being well.
struct HelperMessage: Equatable {
    var words: [Int64] = []
    var value: [UInt8] = []

    /// As large as an option's value may be (``ScratchArea/valueSize``), and all words of a message.
    static let maxBytes = 1024

    init(_ words: [Int64], value: [UInt8] = []) {
        self.words = words
        self.value = value
    }

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(number: UInt32(words.count))
        for word in words { bytes.append(number: word) }
        return bytes + value
    }

    /// nil where the bytes are no message.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard let count: UInt32 = bytes.number(at: 0), count <= 64, bytes.count >= 4 + 8 * Int(count) else {
            return nil
        }
        words = (0..<Int(count)).compactMap { bytes.number(at: 4 + 8 * $0) }
        value = Array(bytes[(4 + 8 * Int(count))...])
    }

    /// A word as a number of a smaller kind; nil where there is none, or it does not fit.
    func word<Number: FixedWidthInteger>(_ index: Int, _: Number.Type = Number.self) -> Number? {
        words.indices.contains(index) ? Number(exactly: words[index]) : nil
    }
}

/// What a helper is asked for.
enum HelperRequest: Equatable {
    case open(SocketHolder, SocketIdentity)
    case get(level: Int32, name: Int32, size: Int)
    case exchange([OptionExchange])
    case release

    private static let maxOptions = 8

    var message: HelperMessage {
        switch self {
        case .open(let holder, let identity):
            HelperMessage([
                1, Int64(holder.pid), Int64(holder.fd), Int64(bitPattern: identity.inode),
                identity.cookie == nil ? 0 : 1, Int64(bitPattern: identity.cookie ?? 0), identity.sharesInode ? 1 : 0,
            ])
        case .get(let level, let name, let size): HelperMessage([2, Int64(level), Int64(name), Int64(size)])
        case .exchange(let options):
            HelperMessage(
                [3]
                    + options.flatMap {
                        [Int64($0.level), Int64($0.name), $0.newValue == nil ? 0 : 1, Int64($0.newValue ?? 0)]
                    })
        case .release: HelperMessage([4])
        }
    }

    init?(_ message: HelperMessage) {
        switch message.words.first {
        case 1:
            guard message.words.count == 7, let pid = message.word(1, Int32.self), let fd = message.word(2, Int32.self)
            else { return nil }
            self = .open(
                SocketHolder(pid: pid, fd: fd),
                SocketIdentity(
                    inode: UInt64(bitPattern: message.words[3]),
                    cookie: message.words[4] == 0 ? nil : UInt64(bitPattern: message.words[5]),
                    sharesInode: message.words[6] != 0))
        case 2:
            guard let level = message.word(1, Int32.self), let name = message.word(2, Int32.self),
                let size = message.word(3, Int.self), (0...ScratchArea.valueSize).contains(size)
            else { return nil }
            self = .get(level: level, name: name, size: size)
        case 3:
            let count = (message.words.count - 1) / 4
            guard message.words.count == 1 + 4 * count, (1...Self.maxOptions).contains(count) else { return nil }
            var options: [OptionExchange] = []
            for start in stride(from: 1, to: 1 + 4 * count, by: 4) {
                guard let level = message.word(start, Int32.self), let name = message.word(start + 1, Int32.self),
                    let newValue = message.word(start + 3, Int32.self)
                else { return nil }
                let option = SocketOption(level: level, name: name)
                options.append(OptionExchange(option, to: message.words[start + 2] == 0 ? nil : newValue))
            }
            self = .exchange(options)
        case 4: self = .release
        default: return nil
        }
    }
}

/// What a helper answers.
enum HelperReply: Equatable {
    /// It has its user's rights, or a socket is open.
    case done
    case failed(Errno)
    case refused(RemoteSocket.AttachError)
    /// The descriptor is in a table that cannot be reached here.
    case otherTable
    case value([UInt8])
    /// For each option what was read, and the error.
    case exchanged([(value: Int32, error: Errno?)])
    case released(crashSafe: Bool?, pausedMicroseconds: Int, restartedWait: RestartedWait?)
    /// The answer is still to come: a thread is held, and is waited for.
    case busy

    var message: HelperMessage {
        switch self {
        case .done: HelperMessage([0])
        case .failed(let error): HelperMessage([1, Int64(error.rawValue)])
        case .refused(let attachError):
            HelperMessage([2, attachError.reason.rawValue, Int64(attachError.errno.rawValue)])
        case .otherTable: HelperMessage([3])
        case .value(let bytes): HelperMessage([4], value: bytes)
        case .exchanged(let options):
            HelperMessage([5] + options.flatMap { [Int64($0.value), Int64($0.error?.rawValue ?? 0)] })
        case .released(let crashSafe, let paused, let wait):
            HelperMessage([
                6, crashSafe.map { $0 ? 1 : 0 } ?? -1, Int64(paused), Int64(wait?.call.rawValue ?? 0),
                Int64(wait?.milliseconds ?? -1),
            ])
        case .busy: HelperMessage([7])
        }
    }

    init?(_ message: HelperMessage) {
        func errno(_ index: Int) -> Errno? {
            message.word(index, Int32.self).flatMap { (1...4095).contains($0) ? Errno(rawValue: $0) : nil }
        }
        switch message.words.first {
        case 0: self = .done
        case 1:
            guard let error = errno(1) else { return nil }
            self = .failed(error)
        case 2:
            guard let reason = message.word(1, Int64.self).flatMap(RemoteSocket.Reason.init(rawValue:)),
                let error = errno(2)
            else { return nil }
            self = .refused(RemoteSocket.AttachError(reason: reason, errno: error))
        case 3: self = .otherTable
        case 4: self = .value(message.value)
        case 5:
            guard message.words.count % 2 == 1 else { return nil }
            var options: [(Int32, Errno?)] = []
            for index in stride(from: 1, to: message.words.count, by: 2) {
                guard let value = message.word(index, Int32.self) else { return nil }
                options.append((value, errno(index + 1)))
            }
            self = .exchanged(options)
        case 6:
            guard let crashSafe = message.word(1, Int.self), let paused = message.word(2, Int.self), paused >= 0,
                let call = message.word(3, UInt8.self), let milliseconds = message.word(4, Int.self)
            else { return nil }
            let wait = RestartedWait.Call(rawValue: call).map {
                RestartedWait(call: $0, milliseconds: milliseconds < 0 ? nil : milliseconds)
            }
            self = .released(
                crashSafe: crashSafe < 0 ? nil : crashSafe == 1, pausedMicroseconds: paused, restartedWait: wait)
        case 7: self = .busy
        default: return nil
        }
    }

    static func == (one: HelperReply, other: HelperReply) -> Bool { one.message == other.message }
}

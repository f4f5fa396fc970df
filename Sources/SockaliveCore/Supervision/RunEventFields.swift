import SystemPackage

// What events are made of, as bytes.

extension ProcessIdentity {
    func write(into writer: inout WireWriter) {
        writer.write(pid)
        writer.write(name.bytes)
        writer.write(executable) { $0.write($1.bytes) }
        writer.write(uid)
        writer.write(startTime)
        writer.write(networkNamespace)
        writer.write(place) { $1.write(into: &$0) }
        writer.write(arguments) { $0.write($1.bytes) }
    }

    convenience init(_ reader: inout WireReader) throws(WireReader.Malformed) {
        self.init(
            pid: try reader.read(), name: UntrustedText(try reader.readBytes()),
            executable: try reader.readOptional { reader throws(WireReader.Malformed) in
                UntrustedText(try reader.readBytes())
            },
            uid: try reader.read(), startTime: try reader.read(), networkNamespace: try reader.read(),
            place: try reader.readOptional { reader throws(WireReader.Malformed) in try ProcessPlace(&reader) },
            arguments: try reader.readOptional { reader throws(WireReader.Malformed) in
                ProcessArguments(try reader.readBytes())
            })
    }
}

extension ProcessPlace {
    func write(into writer: inout WireWriter) {
        writer.write(cgroup.text.bytes)
        writer.write(containerName) { $0.write($1.bytes) }
        writer.write(podName) { writer, pod in
            writer.write(pod.name.bytes)
            writer.write(pod.namespace) { $0.write($1.bytes) }
        }
    }

    init(_ reader: inout WireReader) throws(WireReader.Malformed) {
        func text(_ reader: inout WireReader) throws(WireReader.Malformed) -> UntrustedText {
            UntrustedText(try reader.readBytes())
        }
        self.init(
            cgroup: CGroupPath(try reader.readBytes()), containerName: try reader.readOptional(text),
            podName: try reader.readOptional { reader throws(WireReader.Malformed) in
                PodName(name: try text(&reader), namespace: try reader.readOptional(text))
            })
    }
}

extension SocketFailure {
    func write(into writer: inout WireWriter) {
        writer.write(kind)
        writer.write(code)
        writer.write(message)
        writer.write(remedy) { $0.write($1) }
    }

    init(_ reader: inout WireReader) throws(WireReader.Malformed) {
        self.init(
            try reader.read(), code: try reader.readText(), try reader.readText(),
            remedy: try reader.readOptional { reader throws(WireReader.Malformed) in try reader.readText() })
    }
}

extension SearchError {
    func write(into writer: inout WireWriter) {
        switch self {
        case .foreignNamespace: writer.write(UInt8(0))
        case .stopped(.timeout(let limit)):
            writer.write(UInt8(1))
            writer.write(limit)
        case .stopped(.signal(let name)):
            writer.write(UInt8(2))
            writer.write(name)
        case .source(let failure):
            writer.write(UInt8(3))
            writer.write(failure.error.rawValue)
            writer.write(failure.isOfText)
        case .proc(let error), .noWorker(let error):
            writer.write(UInt8(4))
            writer.write(error.rawValue)
        case .hidden: writer.write(UInt8(5))
        case .workerFailed: writer.write(UInt8(0))
        }
    }

    init(_ reader: inout WireReader) throws(WireReader.Malformed) {
        switch try reader.read(UInt8.self) {
        case 0: self = .foreignNamespace
        case 1: self = .stopped(.timeout(try reader.read()))
        case 2: self = .stopped(.signal(try reader.readText()))
        case 3: self = .source(SourceFailure(error: Errno(rawValue: try reader.read()), isOfText: try reader.read()))
        case 4: self = .proc(Errno(rawValue: try reader.read()))
        case 5: self = .hidden
        default: throw WireReader.Malformed()
        }
    }
}

import CSockalive
import Glibc
import SystemPackage

/// The commands of bpf(2) that a guard needs. They want CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the machine's
/// first user namespace; those that take a number want CAP_SYS_ADMIN.
enum BPF {
    /// Makes the call again where the verifier was interrupted by a signal (kernel/bpf/verifier.c, -EAGAIN).
    private static func call(_ command: bpf_cmd, _ attributes: inout bpf_attr) throws(Errno) -> Int32 {
        for _ in 0..<maxTries {
            let result = sockalive_bpf(Int32(command.rawValue), &attributes)
            if result >= 0 { return result }
            if -result != EAGAIN { throw Errno(rawValue: -result) }
        }
        throw .resourceTemporarilyUnavailable
    }

    private static let maxTries = 10

    private static func object(_ command: bpf_cmd, _ attributes: inout bpf_attr) throws(Errno) -> BPFObject {
        BPFObject(descriptor: try call(command, &attributes))
    }

    // MARK: maps

    /// An array whose keys are numbers from 0 on.
    ///
    /// - Parameter isReadOnly: programs only read it (BPF_F_RDONLY_PROG, Linux 5.2).
    static func createArray(
        _ name: String, entries: Int, valueSize: Int, isReadOnly: Bool
    ) throws(Errno) -> BPFObject {
        var attributes = bpf_attr()
        attributes.map_type = BPF_MAP_TYPE_ARRAY.rawValue
        attributes.key_size = 4
        attributes.value_size = UInt32(valueSize)
        attributes.max_entries = UInt32(entries)
        attributes.map_flags = isReadOnly ? 1 << 7 : 0
        copy(name, to: &attributes.map_name)
        return try object(BPF_MAP_CREATE, &attributes)
    }

    /// One entry is replaced.
    static func update(_ map: BPFObject, key: UInt32, _ value: [UInt8]) throws(Errno) {
        var (key, result) = (key, Result<Int32, Errno>.success(0))
        value.withUnsafeBytes { value in
            withUnsafeBytes(of: &key) { key in
                var attributes = bpf_attr()
                attributes.map_fd = UInt32(map.descriptor)
                attributes.key = address(key)
                attributes.value = address(value)
                result = Result { () throws(Errno) in try call(BPF_MAP_UPDATE_ELEM, &attributes) }
            }
        }
        _ = try result.get()
    }

    static func lookUp(_ map: BPFObject, key: UInt32, size: Int) throws(Errno) -> [UInt8] {
        var (key, value) = (key, [UInt8](repeating: 0, count: size))
        var result = Result<Int32, Errno>.success(0)
        value.withUnsafeMutableBytes { value in
            withUnsafeBytes(of: &key) { key in
                var attributes = bpf_attr()
                attributes.map_fd = UInt32(map.descriptor)
                attributes.key = address(key)
                attributes.value = address(UnsafeRawBufferPointer(value))
                result = Result { () throws(Errno) in try call(BPF_MAP_LOOKUP_ELEM, &attributes) }
            }
        }
        _ = try result.get()
        return value
    }

    // MARK: programs

    /// The kernel's verifier rejected a program, or a right is missing.
    struct LoadError: Error {
        let errno: Errno
        /// The verifier's words; empty where it did not come so far.
        let log: String
    }

    /// Loads a program for the sock_ops hook of a cgroup.
    static func load(_ instructions: [BPFInstruction], _ name: String, license: String) throws(LoadError) -> BPFObject {
        let places = instructions.flatMap(\.encoded)
        let license = Array(license.utf8CString)
        var log = [UInt8](repeating: 0, count: 64 * 1024)
        func load(level: UInt32) -> Result<BPFObject, Errno> {
            places.withUnsafeBytes { places in
                license.withUnsafeBytes { license in
                    log.withUnsafeMutableBytes { log in
                        var attributes = bpf_attr()
                        attributes.prog_type = BPF_PROG_TYPE_SOCK_OPS.rawValue
                        attributes.insns = address(places)
                        attributes.insn_cnt = UInt32(places.count / MemoryLayout<bpf_insn>.size)
                        attributes.license = address(license)
                        attributes.expected_attach_type = BPF_CGROUP_SOCK_OPS.rawValue
                        copy(name, to: &attributes.prog_name)
                        if level > 0 {
                            attributes.log_level = level
                            attributes.log_buf = address(UnsafeRawBufferPointer(log))
                            attributes.log_size = UInt32(log.count)
                        }
                        return Result { () throws(Errno) in try object(BPF_PROG_LOAD, &attributes) }
                    }
                }
            }
        }
        switch load(level: 0) {
        case .success(let program): return program
        case .failure(let error):
            // The log costs time, so only the second try asks for it. The verifier itself says EACCES; a missing right is
            // EPERM.
            if error != .notPermitted, case .success(let program) = load(level: 1) { return program }
            throw LoadError(errno: error, log: String(decoding: log.prefix { $0 != 0 }, as: UTF8.self))
        }
    }

    /// What the kernel tells of a program.
    struct ProgramInfo {
        let id: UInt32
        /// At most 15 bytes, chosen by its owner.
        let name: UntrustedText
        /// A hash of its instructions, without the descriptors of maps.
        let tag: [UInt8]
    }

    static func programInfo(_ program: BPFObject) throws(Errno) -> ProgramInfo {
        var info = bpf_prog_info()
        try readInfo(program, &info)
        let name = withUnsafeBytes(of: info.name) { Array($0.prefix { $0 != 0 }) }
        return ProgramInfo(id: info.id, name: UntrustedText(name), tag: withUnsafeBytes(of: info.tag) { Array($0) })
    }

    /// Wants CAP_SYS_ADMIN.
    static func program(id: UInt32) throws(Errno) -> BPFObject {
        var attributes = bpf_attr()
        attributes.prog_id = id
        return try object(BPF_PROG_GET_FD_BY_ID, &attributes)
    }

    // MARK: links

    /// Attaches a program to a cgroup, beside others (BPF_F_ALLOW_MULTI), for as long as the link is there: Linux 5.7.
    static func link(_ program: BPFObject, to cgroup: Int32) throws(Errno) -> BPFObject {
        var attributes = bpf_attr()
        attributes.link_create.prog_fd = UInt32(program.descriptor)
        attributes.link_create.target_fd = UInt32(cgroup)
        attributes.link_create.attach_type = BPF_CGROUP_SOCK_OPS.rawValue
        return try object(BPF_LINK_CREATE, &attributes)
    }

    /// From one connection to the next the link has the other program.
    static func replaceProgram(of link: BPFObject, by program: BPFObject) throws(Errno) {
        var attributes = bpf_attr()
        attributes.link_update.link_fd = UInt32(link.descriptor)
        attributes.link_update.new_prog_fd = UInt32(program.descriptor)
        _ = try call(BPF_LINK_UPDATE, &attributes)
    }

    struct LinkInfo {
        let id: UInt32
        let programID: UInt32
        /// nil: the cgroup is gone.
        let cgroupID: UInt64?
    }

    static func linkInfo(_ link: BPFObject) throws(Errno) -> LinkInfo {
        var info = bpf_link_info()
        try readInfo(link, &info)
        guard info.type == BPF_LINK_TYPE_CGROUP.rawValue, info.cgroup.attach_type == BPF_CGROUP_SOCK_OPS.rawValue
        else { throw .invalidArgument }
        let cgroup = info.cgroup.cgroup_id
        return LinkInfo(id: info.id, programID: info.prog_id, cgroupID: cgroup == 0 ? nil : cgroup)
    }

    private static func readInfo<Info>(_ object: BPFObject, _ info: inout Info) throws(Errno) {
        var result = Result<Int32, Errno>.success(0)
        withUnsafeMutableBytes(of: &info) { info in
            var attributes = bpf_attr()
            attributes.info.bpf_fd = UInt32(object.descriptor)
            attributes.info.info_len = UInt32(info.count)
            attributes.info.info = address(UnsafeRawBufferPointer(info))
            result = Result { () throws(Errno) in try call(BPF_OBJ_GET_INFO_BY_FD, &attributes) }
        }
        _ = try result.get()
    }

    // MARK: what is attached

    /// The sock_ops programs of one cgroup itself.
    struct Attached: Equatable {
        enum Mode: String, Sendable {
            case multi, override, none
        }

        /// Without programs it says nothing.
        let mode: Mode
        let programs: [UInt32]
    }

    /// Wants CAP_NET_ADMIN.
    static func attached(to cgroup: Int32) throws(Errno) -> Attached {
        var ids = [UInt32](repeating: 0, count: 64)
        while true {
            var attributes = bpf_attr()
            let result = ids.withUnsafeMutableBytes { ids in
                attributes.query.target_fd = UInt32(cgroup)
                attributes.query.attach_type = BPF_CGROUP_SOCK_OPS.rawValue
                attributes.query.prog_ids = address(UnsafeRawBufferPointer(ids))
                attributes.query.prog_cnt = UInt32(ids.count / 4)
                return Result { () throws(Errno) in try call(BPF_PROG_QUERY, &attributes) }
            }
            if case .failure(.noSpace) = result {
                ids = [UInt32](repeating: 0, count: max(ids.count * 2, Int(attributes.query.prog_cnt)))
                continue
            }
            _ = try result.get()
            let flags = attributes.query.attach_flags
            let mode: Attached.Mode =
                flags & UInt32(BPF_F_ALLOW_MULTI) != 0
                ? .multi : flags & UInt32(BPF_F_ALLOW_OVERRIDE) != 0 ? .override : .none
            return Attached(mode: mode, programs: Array(ids.prefix(Int(attributes.query.prog_cnt))))
        }
    }

    // MARK: pins

    /// Gives an object a name in a BPF file system. It then stays until the name is removed.
    static func pin(_ object: BPFObject, _ path: String) throws(Errno) {
        var result = Result<Int32, Errno>.success(0)
        Array(path.utf8CString).withUnsafeBytes { path in
            var attributes = bpf_attr()
            attributes.pathname = address(path)
            attributes.bpf_fd = UInt32(object.descriptor)
            result = Result { () throws(Errno) in try call(BPF_OBJ_PIN, &attributes) }
        }
        _ = try result.get()
    }

    static func pinned(_ path: String) throws(Errno) -> BPFObject {
        try Array(path.utf8CString).withUnsafeBytes { path in
            var attributes = bpf_attr()
            attributes.pathname = address(path)
            return Result { () throws(Errno) in try object(BPF_OBJ_GET, &attributes) }
        }.get()
    }

    // MARK: attributes

    private static func address(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        UInt64(UInt(bitPattern: bytes.baseAddress))
    }

    /// A name of at most 15 bytes, and a zero.
    private static func copy<Name>(_ text: String, to name: inout Name) {
        withUnsafeMutableBytes(of: &name) { $0.copyBytes(from: text.utf8.prefix($0.count - 1)) }
    }
}

/// A map, a program or a link: a descriptor that is closed with its last reference.
package final class BPFObject: Sendable {
    let descriptor: Int32

    init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }
}

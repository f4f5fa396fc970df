import CSockalive

/// A process that was looked at, ready to be held.
struct RemoteTarget {
    let holder: SocketHolder
    let inode: UInt64
    let tid: Int32
    let code: MachineCode
    let status: ThreadStatus
    let stacks: [MemoryMap.Stack]
    let spareDescriptor: Int32

    /// In the words of C.
    func withDescription<Result>(_ body: (UnsafePointer<sockalive_target>) -> Result) -> Result {
        let spans = stacks.map {
            sockalive_stack(start: $0.span.lowerBound, end: $0.span.upperBound, main: $0.isMain)
        }
        return spans.withUnsafeBufferPointer { spans in
            var target = sockalive_target()
            target.pid = holder.pid
            target.tid = tid
            target.fd = holder.fd
            target.inode = inode
            target.is_32_bit = code.is32Bit
            target.call = sockalive_code(code.call)
            target.returns = code.returns
            target.skipped = code.skipped
            target.sigreturn = sockalive_code(code.sigreturn)
            target.seccomp = status.seccomp != 0
            target.shadow_stack = status.hasShadowStack
            target.own_tid = status.ownNumber ?? 0
            target.handled = status.handledSignals
            target.spare = spareDescriptor
            target.stacks = spans.baseAddress
            target.stack_count = spans.count
            return withUnsafePointer(to: target, body)
        }
    }
}

extension sockalive_code {
    fileprivate init(_ site: MachineCode.Site?) {
        self.init()
        guard let site else { return }
        address = site.address
        length = UInt8(site.bytes.count)
        withUnsafeMutableBytes(of: &bytes) { $0.copyBytes(from: site.bytes) }
    }
}

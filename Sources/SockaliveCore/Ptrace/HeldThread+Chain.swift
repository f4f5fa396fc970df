import Glibc
import SystemPackage

// Several calls with one stop: each returns into the frame that makes the next; at the end the thread sends itself a
// signal that stops it. Killed meanwhile, it runs along the chain into the recovery frames. Call by call
// the whole hold takes two to five times as long (Docs/Injection.md, "Measured").
extension HeldThread {
    /// A setsockopt for each option that is to be set, and a getsockopt behind it.
    ///
    /// - Returns: for each option what was read; nil where it has to be made alone, which says why it fails.
    func chain(_ options: [OptionExchange]) throws(Errno) -> [Int32?] {
        guard mayChain, !options.isEmpty, options.count <= ScratchArea.maxSteps, let signal = harmlessSignal else {
            return [Int32?](repeating: nil, count: options.count)
        }
        let calls = options.indices.flatMap { chainedCalls(options[$0], step: ScratchArea.step($0)) }
        let first = writeChain(calls, endingWith: signal)
        let steps = scratch.bytes(
            from: ScratchArea.step(0), count: ScratchArea.chain(calls.count) - ScratchArea.step(0))
        try write(UnsafeRawBufferPointer(steps), to: scratch.address(of: ScratchArea.step(0)))
        try runChain(from: first, to: signal)
        let answers = scratch.bytes(from: ScratchArea.step(0), count: ScratchArea.chain(0) - ScratchArea.step(0))
        try memory().read(scratch.address(of: ScratchArea.step(0)), into: answers)
        return options.indices.map { scratch.outcome(ofStep: ScratchArea.step($0), wanted: options[$0].newValue) }
    }

    private struct ChainedCall {
        let call: RemoteSyscall
        /// Where its first arguments lie as 32-bit numbers.
        let words: UInt64
    }

    private func chainedCalls(_ option: OptionExchange, step: Int) -> [ChainedCall] {
        scratch.prepareStep(step, given: option.newValue ?? 0)
        return [true, false].filter { !$0 || option.newValue != nil }.map { isSet in
            let call = remoteSyscall(
                OptionCall(isSet: isSet, level: option.level, name: option.name),
                value: step + (isSet ? ScratchArea.Step.given : ScratchArea.Step.value),
                length: step + ScratchArea.Step.length, size: 4)
            let words = step + (isSet ? ScratchArea.Step.wordsOfSet : ScratchArea.Step.wordsOfGet)
            scratch.store(call.words, at: words)
            return ChainedCall(call: call, words: scratch.address(of: words))
        }
    }

    /// Writes the frames into our copy of the scratch area.
    ///
    /// - Returns: the registers of the first call.
    private func writeChain(_ calls: [ChainedCall], endingWith signal: Int32) -> Registers {
        let own = UInt64(UInt32(bitPattern: target.status.ownNumber ?? 0))
        let stop = RemoteSyscall(.tkill, own, UInt64(UInt32(bitPattern: signal)))
        for index in calls.indices.dropFirst() {
            frame(registers(for: calls[index], at: index), mask: Self.allSignals, at: ScratchArea.chain(index - 1))
        }
        let last = registers(for: stop, stack: scratch.address(of: ScratchArea.close), array: nil)
        frame(last, mask: Self.allSignals & ~(1 << UInt64(signal - 1)), at: ScratchArea.chain(calls.count - 1))
        return registers(for: calls[0], at: 0)
    }

    private func registers(for chained: ChainedCall, at index: Int) -> Registers {
        registers(for: chained.call, stack: scratch.address(of: ScratchArea.chain(index)), array: chained.words)
    }

    private func runChain(from first: Registers, to signal: Int32) throws(Errno) {
        do {
            try tracee.set(first)
            hasChained = true
            try tracee.resume(.toAnyStop)
            try tracee.run(.toAnyStop, to: .signal(signal))
        } catch {
            try recover(from: error)
        }
    }

    /// A signal that the target neither blocks nor handles and whose default is to be ignored: it stops a traced
    /// thread (sig_ignored), and does nothing to one whose tracer is gone.
    private var harmlessSignal: Int32? {
        let taken = target.status.handledSignals | mask
        return [SIGURG, SIGWINCH, SIGCHLD].first { taken >> UInt64($0 - 1) & 1 == 0 }
    }
}

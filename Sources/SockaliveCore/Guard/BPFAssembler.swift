import CSockalive

/// Writes a program for the kernel's BPF machine: instructions, and labels that jumps name. Pure.
struct BPFAssembler<Label: Hashable & Sendable> {
    private enum Statement {
        case plain(BPFInstruction)
        case jump(Label)
        case jumpIf(BPFInstruction.Condition, BPFInstruction.Register, BPFInstruction.Operand, Label)
    }

    /// The program's own mistakes.
    enum Mistake: Error, Equatable {
        case missing(Label)
        case twice(Label)
        case tooFar(Label)
    }

    private var statements: [Statement] = []
    /// The place of the next instruction.
    private var end = 0
    private var places: [Label: Int] = [:]
    private var repeated: Label?

    mutating func label(_ label: Label) {
        if places.updateValue(end, forKey: label) != nil { repeated = label }
    }

    mutating func add(_ instructions: BPFInstruction...) {
        for instruction in instructions { append(.plain(instruction), length: instruction.length) }
    }

    mutating func jump(to label: Label) {
        append(.jump(label), length: 1)
    }

    mutating func jump(
        to label: Label, if condition: BPFInstruction.Condition, _ register: BPFInstruction.Register,
        _ operand: BPFInstruction.Operand
    ) {
        append(.jumpIf(condition, register, operand, label), length: 1)
    }

    private mutating func append(_ statement: Statement, length: Int) {
        statements.append(statement)
        end += length
    }

    /// The instructions with each label replaced by an offset. The offset counts from the place behind the jump.
    func instructions() throws(Mistake) -> [BPFInstruction] {
        if let repeated { throw .twice(repeated) }
        var result: [BPFInstruction] = []
        var place = 0
        for statement in statements {
            switch statement {
            case .plain(let instruction): result.append(instruction)
            case .jump(let label): result.append(.jump(offset: try offset(to: label, from: place)))
            case .jumpIf(let condition, let register, let operand, let label):
                result.append(.jumpIf(condition, register, operand, offset: try offset(to: label, from: place)))
            }
            place += result[result.count - 1].length
        }
        return result
    }

    private func offset(to label: Label, from place: Int) throws(Mistake) -> Int16 {
        guard let target = places[label] else { throw .missing(label) }
        guard let offset = Int16(exactly: target - place - 1) else { throw .tooFar(label) }
        return offset
    }
}

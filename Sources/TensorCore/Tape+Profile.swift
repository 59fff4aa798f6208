/// The kind of work of an instruction, for profiles.
package enum Work: String, CaseIterable, Sendable {
    case convolutionForward = "convolution forward"
    case convolutionBackwardData = "convolution backward data"
    case convolutionBackwardWeights = "convolution backward weights"
    case pack = "weight packing"
    case attention = "attention"
    case matmul = "matmul"
    case norm = "norms"
    case elementwise = "other elementwise"
}

/// The start and end of one instruction.
package struct InstructionSpan: Sendable {
    /// The name of the operation or of its parameter.
    package let name: String
    package let work: Work
    /// FLOPs of the direct algorithm; 0 if they are not counted.
    package let flops: Int
    package let start: ContinuousClock.Instant
    package let end: ContinuousClock.Instant

    init(_ instruction: Tape.Instruction, start: ContinuousClock.Instant, end: ContinuousClock.Instant) {
        name = instruction.name
        work = instruction.work
        flops = instruction.flops
        self.start = start
        self.end = end
    }
}

/// Seconds and FLOPs of one kind of work.
package struct WorkProfile: Sendable {
    package let work: Work
    package var seconds: Double
    /// FLOPs; 0 if they are not counted.
    package var flops: Double
}

extension Tape {
    /// FLOPs of one run: two for each multiply-add of convolutions, linear layers, attention and matrix
    /// products with the direct algorithm. Recomputation in backward passes is not counted.
    package var flops: Int { instructions.reduce(0) { $0 + $1.flops } }

    /// The cumulative FLOPs up to and including each instruction.
    package var flopsDone: [Int] {
        var done = 0
        return instructions.map {
            done += $0.flops
            return done
        }
    }

    /// Seconds and FLOPs by kind of work in the runs since the last reset, in the order of `Work.allCases`.
    package var profile: [WorkProfile] {
        var totals = Work.allCases.map { WorkProfile(work: $0, seconds: 0, flops: 0) }
        for (instruction, seconds) in zip(instructions, seconds) {
            let index = Work.allCases.firstIndex(of: instruction.work)!
            totals[index].seconds += seconds
            totals[index].flops += Double(instruction.flops * runs)
        }
        return totals
    }
}

extension Collection<Tape> {
    /// The combined profile of all these tapes since the last call, in the order of `Work.allCases`.
    package func takeProfile() -> [WorkProfile] {
        var totals = Work.allCases.map { WorkProfile(work: $0, seconds: 0, flops: 0) }
        for tape in self {
            for (index, part) in tape.profile.enumerated() {
                totals[index].seconds += part.seconds
                totals[index].flops += part.flops
            }
            tape.resetProfile()
        }
        return totals
    }
}

extension Duration {
    /// The duration in seconds.
    package var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}

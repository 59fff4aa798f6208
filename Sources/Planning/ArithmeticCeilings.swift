import Communication
import TensorCore

/// The peak throughput of all ranks with all their threads, measured for isolated operations, in FLOP/s of
/// the direct algorithm. The throughput of a whole step is compared with it.
package struct ArithmeticCeilings: Sendable {
    /// OpenBLAS matrix product of size 1,024³.
    package var matmulFP32: Double
    /// Direct 3×3 convolution, [16, 32, 32, 128] → 128 channels, with oneDNN if the program is built with it.
    package var convolutionFP32: Double
    /// The same in bf16; nil on a processor without native bf16 multiplication.
    package var convolutionBF16: Double?

    /// The throughput of direct convolution for a type, in FLOP/s.
    package func convolution(_ dtype: DType) -> Double {
        dtype == .bfloat16 ? convolutionBF16 ?? convolutionFP32 : convolutionFP32
    }

    /// Measures on all ranks at the same time and takes the fastest of `repeats` calls. Collective.
    package static func measure(_ communicator: Communicator, repeats: Int = 6) throws
        -> ArithmeticCeilings
    {
        func overRanks(_ run: () -> Void, flops: Double) throws -> Double {
            run()
            try communicator.barrier()
            var best = Double.infinity
            for _ in 0..<repeats {
                let start = ContinuousClock.now
                run()
                best = min(best, (ContinuousClock.now - start).seconds)
            }
            return try communicator.allReduceSum(flops / best)
        }
        func convolution(_ dtype: DType) throws -> Double {
            let store = ParameterStore()
            let weight = store.declare("weight", [128, 128, 3, 3], .uniformBound(0.01))
            store.initialize(seed: 0)
            let tape = Tape(
                dtype: dtype, backend: Backend.oneDNN.isAvailable ? .oneDNN : .openBLAS,
                recordsGradients: false)
            let x = tape.input([16, 32, 32, 128])
            tape.keep(tape.convolution(x, weight, nil))
            tape.plan()
            x.write([Float](repeating: 0.5, count: x.count))
            let context = RunContext(batch: 16)
            return try overRanks({ tape.run(context) }, flops: Double(tape.flops))
        }
        func matmul() throws -> Double {
            let tape = Tape(recordsGradients: false)
            let (a, b) = (tape.input([1024, 1024]), tape.input([1024, 1024]))
            tape.keep(tape.matmul(a, b))
            tape.plan()
            for x in [a, b] { x.write([Float](repeating: 0.5, count: x.count)) }
            let context = RunContext(batch: 1)
            return try overRanks({ tape.run(context) }, flops: Double(tape.flops))
        }
        return ArithmeticCeilings(
            matmulFP32: try matmul(), convolutionFP32: try convolution(.float32),
            convolutionBF16: Processor.hasNativeBFloat16 ? try convolution(.bfloat16) : nil)
    }
}

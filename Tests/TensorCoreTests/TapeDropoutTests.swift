import TensorCore
import Testing

@Suite struct TapeDropoutTests {
    private static let p: Float = 0.3

    /// The key of a dropout run.
    private struct Key {
        var seed: UInt64 = 3
        var step: UInt64 = 7
        var samples: [Int64] = [5, 9, 12, 1 << 40]
    }

    /// The dropout of ones, [B, n], after `layersBefore` other dropouts, and the input gradient for
    /// `outputGradient`.
    private static func run(
        _ key: Key = Key(), count n: Int = 16_384, p: Float = p, layersBefore: Int = 0,
        dtype: DType = .float32, outputGradient: Float = 1
    ) throws -> (output: [[Float]], gradient: [[Float]]) {
        let B = key.samples.count
        let tape = Tape(dtype: dtype, recordsGradients: true)
        let x = tape.input([B, n], gradient: true)
        for _ in 0..<layersBefore { _ = tape.dropout(x, 0.5) }
        let y = tape.dropout(x, p)
        tape.keep(y)
        let seed = tape.input(y.shape)
        tape.backward(from: [(y, seed)])
        let gradient = try #require(tape.gradient(of: x))
        tape.plan()
        x.write(Array(repeating: 1, count: x.count))
        seed.write(Array(repeating: outputGradient, count: x.count))
        let context = RunContext(seed: key.seed, batch: B)
        context.step = key.step
        context.samples = key.samples
        tape.run(context)
        func rows(_ values: [Float]) -> [[Float]] { (0..<B).map { Array(values[$0 * n..<($0 + 1) * n]) } }
        return (rows(y.readFloats()), rows(gradient.readFloats()))
    }

    private static func mask(_ row: [Float]) -> [Bool] { row.map { $0 != 0 } }

    /// Fraction of elements where two masks agree.
    private static func agreement(_ a: [Float], _ b: [Float]) -> Double {
        Double(zip(mask(a), mask(b)).filter { $0 == $1 }.count) / Double(a.count)
    }

    @Test(arguments: [Float(0.1), 0.3, 0.75])
    func keepsItsShareAndTheMean(p: Float) throws {
        let output = try Self.run(p: p).output.flatMap { $0 }
        let kept = output.filter { $0 != 0 }
        let share = Double(kept.count) / Double(output.count)
        // Five standard deviations of 65,536 coin tosses.
        #expect(abs(share - Double(1 - p)) < 5 * (0.25 / 65_536).squareRoot())
        #expect(kept.allSatisfy { abs($0 * (1 - p) - 1) < 1e-6 })
    }

    @Test func masksFollowTheSampleWhereverItStands() throws {
        let all = try Self.run().output
        var key = Key()
        key.samples = [9]
        #expect(try Self.run(key).output == [all[1]])
        key.samples = [1 << 40, 12, 9, 5]
        #expect(try Self.run(key).output == all.reversed())
    }

    @Test func everyPartOfTheKeyCounts() throws {
        let base = try Self.run().output
        // Two independent masks agree where both keep or both drop.
        let expected = Double(Self.p * Self.p + (1 - Self.p) * (1 - Self.p))
        func expectIndependent(_ a: [Float], _ b: [Float], _ what: String) {
            let found = Self.agreement(a, b)
            #expect(abs(found - expected) < 0.03, "\(what): masks agree in \(found)")
        }
        for other in 1..<base.count { expectIndependent(base[0], base[other], "sample") }
        var key = Key()
        key.step = 8
        expectIndependent(base[0], try Self.run(key).output[0], "step")
        key.step = 7 + 1 << 32
        expectIndependent(base[0], try Self.run(key).output[0], "step past 32 bits")
        key = Key()
        key.seed = 4
        expectIndependent(base[0], try Self.run(key).output[0], "seed")
        expectIndependent(base[0], try Self.run(layersBefore: 1).output[0], "layer")
        expectIndependent(
            try Self.run(layersBefore: 1).output[0], try Self.run(layersBefore: 2).output[0], "layers")
    }

    @Test(arguments: [DType.float32, .bfloat16])
    func backwardDropsWhatForwardDropped(dtype: DType) throws {
        let (output, gradient) = try Self.run(count: 1001, dtype: dtype, outputGradient: -2)
        #expect(gradient == output.map { $0.map { -2 * $0 } })
        let exact = try Self.run(count: 1001).output
        #expect(output.map(Self.mask) == exact.map(Self.mask), "masks depend on the type")
    }

    /// Gradients from other uses of the input are kept.
    @Test func gradientsFromElsewhereAreAdded() throws {
        let tape = Tape(recordsGradients: true)
        let x = tape.input([2, 100], gradient: true)
        let y = tape.dropout(x, 0.5)
        let z = tape.scale(x, by: 3)
        let seed = tape.input(x.shape)
        tape.keep(y)
        tape.backward(from: [(y, seed), (z, seed)])
        let gradient = try #require(tape.gradient(of: x))
        tape.plan()
        x.write(Array(repeating: 1, count: 200))
        seed.write(Array(repeating: 1, count: 200))
        tape.run(RunContext(batch: 2))
        #expect(gradient.readFloats() == y.readFloats().map { $0 + 3 })
        #expect(Set(y.readFloats()) == [0, 2])
    }

    @Test func doesNothingAtZeroOrWithoutGradients() {
        let training = Tape(recordsGradients: true)
        let x = training.input([2, 3])
        #expect(training.dropout(x, 0) === x)
        let inference = Tape(recordsGradients: false)
        let y = inference.input([2, 3])
        #expect(inference.dropout(y, 0.5) === y)
        #expect(inference.instructionCount == 0)
    }
}

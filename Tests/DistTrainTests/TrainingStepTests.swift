import Communication
import Datasets
import DistTrain
import Foundation
import TensorCore
import Testing
import TestSupport

@Suite struct TrainingStepTests {
    /// Losses of a few steps.
    private static func losses(_ training: TinyTraining, steps: Int = 4) throws -> [Double] {
        try (0..<steps).map { try training.step($0).loss }
    }

    // MARK: Micro-batches

    /// Loss, gradient and weights agree up to rounding for any micro-batch size. 4 leaves a remainder.
    @Test(arguments: [1, 2, 4, 6, 100])
    func microBatchesChangeNothing(size: Int) throws {
        // Some gradients are zero except for rounding (a key's bias), and Adam would scale them up to full steps; a
        // larger eps prevents this.
        let settings = AdamW.Settings(eps: 1e-3)
        let whole = try TinyTraining(adamW: settings)
        let cut = try TinyTraining(microBatchSize: size, adamW: settings)
        for step in 0..<4 {
            let (a, b) = (try whole.step(step), try cut.step(step))
            #expect(abs(a.loss - b.loss) <= 1e-5 * abs(a.loss), "step \(step): \(a.loss) and \(b.loss)")
            #expect(abs(a.gradientNorm - b.gradientNorm) <= 1e-4 * a.gradientNorm)
            #expect(relativeNorm(cut.gradients, whole.gradients) < 1e-4)
        }
        #expect(relativeNorm(cut.weights, whole.weights) < 1e-5)
        #expect(relativeNorm(cut.state[3], whole.state[3]) < 1e-5)
    }

    @Test func aRunRepeatsItsBits() throws {
        let (a, b) = (try TinyTraining(), try TinyTraining())
        #expect(try Self.losses(a) == Self.losses(b))
        #expect(a.state == b.state)
    }

    @Test func trainingLowersTheLoss() throws {
        let training = try TinyTraining(batchSize: 8, dataset: NormalDataset(count: 8), learningRate: 5e-3)
        let losses = try Self.losses(training, steps: 60)
        let (early, late) = (losses.prefix(10).reduce(0, +), losses.suffix(10).reduce(0, +))
        #expect(late < 0.9 * early, "\(early / 10) at first, \(late / 10) at last")
    }

    // MARK: Clipping

    @Test func clippingScalesTheGradientToItsNorm() throws {
        // The first moment after one step is (1 − β1)·(the clipped gradient).
        func usedNorm(_ training: TinyTraining) -> Double {
            training.state[1].reduce(0) { $0 + Double($1) * Double($1) }.squareRoot() / (1 - 0.9)
        }
        let free = try TinyTraining(clipNorm: nil)
        let norm = try free.step(0).gradientNorm
        let own = free.gradients.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
        #expect(abs(norm - own) < 1e-6 * own)
        #expect(abs(usedNorm(free) - norm) < 1e-5 * norm)

        let limit = Float(norm / 3)
        let clipped = try TinyTraining(clipNorm: limit)
        #expect(try clipped.step(0).gradientNorm == norm, "the norm is reported before clipping")
        #expect(abs(usedNorm(clipped) - Double(limit)) < 1e-4 * Double(limit))

        let generous = try TinyTraining(clipNorm: Float(norm * 3))
        _ = try generous.step(0)
        #expect(generous.state == free.state)
    }

    @Test func normsByBlockAddUpToTheWhole() throws {
        let training = try TinyTraining()
        let blocks = GradientBlocks(training.model.store)
        #expect(
            blocks.names == [
                "time_embedding", "conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0",
                "up_blocks.1", "conv_norm_out", "conv_out",
            ])
        let result = try training.step(0, blocks: blocks)
        #expect(result.blockNorms.map(\.name) == blocks.names)
        let squares = result.blockNorms.reduce(0) { $0 + $1.value * $1.value }
        #expect(abs(squares.squareRoot() - result.gradientNorm) < 1e-6 * result.gradientNorm)
        // Reading the value has no side effect.
        let plain = try TinyTraining()
        #expect(try plain.step(0).gradientNorm == result.gradientNorm)
        #expect(plain.state == training.state)
        #expect(try plain.step(1).blockNorms.isEmpty)
        #expect(
            GradientBlocks.block(of: "encoder.down_blocks.2.resnets.0.conv1.weight")
                == "encoder.down_blocks.2")
        #expect(GradientBlocks.block(of: "decoder.conv_in.bias") == "decoder.conv_in")
        #expect(GradientBlocks.block(of: "quant_conv.weight") == "quant_conv")
    }

    // MARK: Faults

    @Test(arguments: [nil, 2] as [Int?])
    func aDamagedSampleStopsBeforeAnythingChanges(microBatchSize: Int?) throws {
        // All samples of the dataset but one are intact, and the batch contains all of them.
        let training = try TinyTraining(
            batchSize: 7, microBatchSize: microBatchSize, dataset: NormalDataset(count: 7, damaged: [3]))
        let before = training.state
        do {
            let result = try training.step(0)
            Issue.record("a step with damaged data came to \(result.loss)")
        } catch let fault as NumericalFault {
            #expect(fault.step == 0 && fault.exitStatus == 4)
            #expect(fault.loss.isNaN || fault.gradientNorm.isNaN)
            #expect(fault.message.contains("step 0") && !fault.message.contains("\n"))
        }
        #expect(training.state == before)
    }

    /// The step before the fault was applied; the faulty step was not.
    @Test func aFaultKeepsTheStepsBefore() throws {
        let order = DataOrder(count: 8, seed: 11)
        let damaged = order.index(at: 4)  // first sample of the second step
        let training = try TinyTraining(
            batchSize: 4, dataset: NormalDataset(count: 8, damaged: [damaged]))
        let sound = try TinyTraining(batchSize: 4, dataset: NormalDataset(count: 8))
        #expect(try training.step(0).loss == sound.step(0).loss)
        #expect(throws: NumericalFault.self) { try training.step(1) }
        #expect(training.state == sound.state)
    }

    // MARK: Buckets

    private static func store(_ sizes: [Int]) -> ParameterStore {
        let store = ParameterStore()
        for (index, size) in sizes.enumerated() { _ = store.declare("p\(index)", [size], .zeros) }
        return store
    }

    @Test(arguments: [
        [1], [16, 16, 16], [5, 1000, 3, 17, 400], [100_000], Array(repeating: 33, count: 50),
    ])
    func bucketsCoverTheStoreOnce(sizes: [Int]) {
        let store = Self.store(sizes)
        for limit in [1, 64, 500, 1 << 20] {
            let buckets = GradientBuckets.ranges(of: store, elements: limit)
            // From the end to the start, without gap or overlap.
            var end = store.count
            for bucket in buckets {
                #expect(bucket.upperBound == end && !bucket.isEmpty)
                end = bucket.lowerBound
            }
            #expect(end == 0)
            // No parameter is split.
            let starts = Set(store.parameters.map(\.offset))
            #expect(buckets.allSatisfy { starts.contains($0.lowerBound) })
            // Each bucket except the last reaches the required size, but would not without its first parameter.
            for bucket in buckets.dropLast() {
                #expect(bucket.count >= limit)
                let first = store.parameters.first { $0.offset == bucket.lowerBound }
                let next = store.parameters.first { $0.offset > bucket.lowerBound }
                #expect(
                    bucket.upperBound - (next?.offset ?? bucket.upperBound) < limit, "\(first?.name ?? "")")
            }
        }
    }

    /// Every bucket starts once, in order, and not before all of its parameters are ready.
    @Test func bucketsStartInOrderWhenTheyAreReady() throws {
        let store = ParameterStore()
        let layers = (0..<6).map { store.declare("layer\($0)", [8, 8], .zeros) }
        let unused = store.declare("unused", [8], .zeros)
        let tape = Tape(recordsGradients: true)
        let x = tape.input([4, 8])
        var h = x
        for layer in layers { h = tape.silu(tape.linear(h, layer, nil)) }
        let seed = tape.input(h.shape)
        tape.backward(from: [(h, seed)])
        #expect(tape.readyAfter(unused) == nil)

        let buckets = GradientBuckets.ranges(of: store, elements: 100)
        #expect(buckets.count == 3)
        let starts = GradientBuckets.starts(buckets, store: store, tape: tape)
        #expect(starts.count == tape.instructionCount)
        #expect(starts.flatMap { $0 } == Array(buckets.indices))
        for (instruction, started) in starts.enumerated() {
            for bucket in started {
                for parameter in store.parameters where buckets[bucket].contains(parameter.offset) {
                    #expect(tape.readyAfter(parameter) ?? 0 <= instruction, "\(parameter.name)")
                }
            }
        }
        // The first reduction starts before the backward pass ends.
        let firstStart = starts.firstIndex { !$0.isEmpty }
        #expect((firstStart ?? .max) < tape.instructionCount / 2 + tape.instructionCount / 4)
    }

    // MARK: Shares

    @Test func aProcessAloneHasTheWholeBatch() throws {
        #expect(try TinyTraining(batchSize: 5, microBatchSize: 2).step.share == 0..<5)
    }
}

import Communication
import LDMModel
import TensorCore
import Testing

/// The order in which the forward pass reads weights, and the routes by which they are sent: the basis for
/// overlapping their all-gather with the forward pass.
@Suite struct WeightOrderTests {
    private static func model() throws -> UNet2DModel {
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(8)
        config.blockOutChannels = [8, 16]
        config.layersPerBlock = 1
        config.downBlockTypes = [.plain, .attention]
        config.upBlockTypes = [.attention, .plain]
        config.attentionHeadDim = 8
        config.normNumGroups = 4
        let model = try UNet2DModel(config)
        model.store.interleave()
        model.store.initialize(seed: 3)
        return model
    }

    @Test func rangesCoverTheStoreOnce() throws {
        let store = try Self.model().store
        let ranges = ForwardOrder.ranges(of: store)
        #expect(ranges.count >= 32 && ranges.allSatisfy { !$0.isEmpty })
        let sorted = ranges.sorted { $0.lowerBound < $1.lowerBound }
        #expect(sorted.first?.lowerBound == 0 && sorted.last?.upperBound == store.count)
        #expect(zip(sorted, sorted.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
    }

    /// Sets all weights to NaN until the instruction that is supposed to read them first: output and
    /// gradients must be bit-identical to those of a normal pass.
    @Test(arguments: [DType.float32, .bfloat16])
    func nothingIsReadBeforeItsFirstUse(_ dtype: DType) throws {
        let model = try Self.model()
        let store = model.store
        let values = Array(UnsafeBufferPointer(start: store.values, count: store.count))
        if dtype == .bfloat16 { store.narrow() }
        let tape = Tape(dtype: dtype, recordsGradients: true)
        let (sample, timestep) = (tape.input([2, 8, 8, 3]), tape.input([2], dtype: .float32))
        let output = model(tape, sample: sample, timestep: timestep)
        tape.keep(output)
        let seed = tape.input(output.shape)
        tape.backward(from: [(output, seed)])
        let ranges = ForwardOrder.ranges(of: store)
        let uses = ForwardOrder.uses(of: ranges, store: store, tape: tape)
        #expect(uses.flatMap { $0 }.sorted() == Array(ranges.indices))
        tape.plan()
        var random = CounterRandom(seed: 4, purpose: .test)
        sample.write((0..<sample.count).map { _ in random.uniform(-1, 1) })
        seed.write((0..<seed.count).map { _ in random.uniform(-1, 1) })
        timestep.write([10, 700])
        let context = RunContext(seed: 7, batch: 2)

        func outcome() -> [UInt32] {
            (output.readFloats() + UnsafeBufferPointer(start: store.gradients, count: store.count)).map(
                \.bitPattern)
        }
        tape.run(context)
        let expected = outcome()
        #expect(expected.contains { $0 != 0 })

        func set(_ range: Range<Int>, _ new: [Float]) { store.setValues(range, from: new) }
        set(0..<store.count, Array(repeating: .nan, count: store.count))
        store.valuesChanged()
        tape.run(context)
        #expect(outcome() != expected)
        store.valuesChanged()
        tape.run(
            context,
            before: { instruction in
                for range in uses[instruction].map({ ranges[$0] }) { set(range, Array(values[range])) }
            })
        #expect(outcome() == expected)
    }

    // MARK: Hosts

    @Test(arguments: [
        [0, 1, 2, 3], [0, 0, 2, 2], [0, 1, 0, 1], [0, 1, 1, 1, 1], [0, 0, 0, 3, 3, 5], [0, 0, 0], [0],
    ])
    func everyRankGetsEveryPieceOnce(leaders: [Int]) {
        let map = HostMap(leaders: leaders)
        let ranks = leaders.indices
        for owner in ranks {
            var crossings: [Int: Int] = [:]
            for rank in ranks {
                guard let source = map.source(of: owner, for: rank) else {
                    #expect(rank == owner)
                    continue
                }
                // A rank's source sends to it exactly once, and no other rank does.
                for other in ranks {
                    let sent = map.targets(of: owner, from: other).filter { $0 == rank }.count
                    #expect(sent == (other == source ? 1 : 0))
                }
                if leaders[source] != leaders[rank] { crossings[leaders[rank], default: 0] += 1 }
                // At most one rank forwards a piece.
                #expect(source == owner || map.source(of: owner, for: source) == owner)
            }
            // The link of a host carries each piece once.
            #expect(crossings.values.allSatisfy { $0 == 1 })
            #expect(crossings.count == Set(leaders).count - 1)
        }
    }

    /// Several ranks of a host receive pieces from other hosts.
    @Test func ranksOfAHostShareTheReceiving() {
        let map = HostMap(leaders: [0, 0, 2, 2])
        #expect(map.source(of: 0, for: 2) == 0 && map.source(of: 0, for: 3) == 2)
        #expect(map.source(of: 1, for: 3) == 1 && map.source(of: 1, for: 2) == 3)
        #expect(map.targets(of: 1, from: 1) == [3, 0])
        #expect(map.hosts == [[0, 1], [2, 3]])
    }
}

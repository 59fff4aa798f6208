import DistTrain
import TensorCore
import Testing

@Suite struct TrainingOptimizerTests {
    // MARK: Learning rate

    private static func rates(
        _ shape: LearningRate.Shape, warmup: Int = 4, final: Float = 0, steps: Range<Int> = 0..<13
    ) -> [Float] {
        let rate = LearningRate(peak: 2e-3, warmupSteps: warmup, shape: shape, final: final, totalSteps: 12)
        return steps.map { rate(step: $0) }
    }

    private static func expectClose(
        _ found: [Float], _ expected: [Float], _ allowed: Float = 1e-9,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(
            found.count == expected.count && zip(found, expected).allSatisfy { abs($0 - $1) <= allowed },
            "found \(found), expected \(expected)", sourceLocation: sourceLocation)
    }

    /// Values of diffusers' get_scheduler("constant_with_warmup") and ("cosine").
    @Test func learningRateIsThatOfDiffusers() {
        let warmup: [Float] = [0, 0.0005, 0.001, 0.0015]
        Self.expectClose(Self.rates(.constant), warmup + Array(repeating: 2e-3, count: 9))
        Self.expectClose(
            Self.rates(.cosine),
            warmup + [
                2e-3, 0.0019238795, 0.0017071068, 0.0013826834, 1e-3, 0.00061731657, 0.00029289322,
                7.6120467e-05, 0,
            ])
    }

    @Test func learningRateEndsAtItsLeast() {
        let rates = Self.rates(.cosine, final: 1e-4)
        #expect(rates[4] == 2e-3 && abs(rates[8] - 1.05e-3) < 1e-9 && abs(rates[12] - 1e-4) < 1e-9)
        // A resumed run that continues beyond its planned steps keeps the final value.
        Self.expectClose(Self.rates(.cosine, final: 1e-4, steps: 13..<40), Array(repeating: 1e-4, count: 27))
    }

    @Test func learningRateNeedsNoWarmup() {
        #expect(Self.rates(.constant, warmup: 0)[0] == 2e-3)
        #expect(Self.rates(.cosine, warmup: 0)[0] == 2e-3)
    }

    // MARK: AdamW

    /// Values of torch.optim.AdamW for twice ½·‖w − target‖² with the gradient halved, with weight decay and a
    /// changing learning rate.
    @Test func adamWIsThatOfPyTorch() {
        let store = ParameterStore()
        let weight = store.declare("weight", [5], .zeros)
        _ = weight.values.update(fromContentsOf: [1, -2, 0.5, 3, 0])
        let target: [Float] = [0.5, 1, -1, 3, 2]
        let optimizer = AdamW(
            count: store.count, AdamW.Settings(beta1: 0.8, beta2: 0.95, eps: 1e-6, weightDecay: 0.05))
        let expected: [[Float]] = [
            [0.97375, -1.9725, 0.47437501, 2.9962499, 0.024999985],
            [0.92144912, -1.9175889, 0.42322779, 3.0275345, 0.074909598],
            [0.84390998, -1.835523, 0.34688485, 2.9703288, 0.14945468],
            [0.74323672, -1.7267747, 0.24600658, 2.9717917, 0.24810511],
        ]
        for update in 0..<4 {
            for index in 0..<5 { weight.gradient[index] = 2 * (weight.values[index] - target[index]) }
            optimizer.step(
                store.values, gradients: store.gradients, update: update,
                learningRate: 0.1 * Float(update + 1) / 4, gradientScale: 0.5)
            Self.expectClose(Array(weight.values), expected[update], 3e-6)
        }
        Self.expectClose(
            (0..<5).map { optimizer.expAvg[$0] },
            [0.24805386, -1.7215989, 0.8394134, -0.0020087319, -1.1357236], 3e-6)
        Self.expectClose(
            (0..<5).map { optimizer.expAvgSq[$0] },
            [0.035195623, 1.5908772, 0.38146645, 8.0665603e-05, 0.69475037], 3e-6)
        for index in 5..<store.count {
            #expect(store.values[index] == 0 && optimizer.expAvgSq[index] == 0, "padding moved")
        }
    }

    // MARK: Averages

    @Test func averageStartsFromTheWeightsAndFollows() {
        let store = ParameterStore()
        let weight = store.declare("weight", [2], .ones)
        store.initialize(seed: 0)
        let average = WeightAverage(store.values, count: store.count, .init(decay: 0.75, warmup: false))
        #expect(average.values[0] == 1 && average.values[1] == 1)
        weight.values[0] = 5
        average.step(update: 0, store.values)
        #expect(average.values[0] == 2 && average.values[1] == 1)  // 0.75·1 + 0.25·5
        average.step(update: 1, store.values)
        #expect(average.values[0] == 2.75)
    }

    /// Values of diffusers' EMAModel(decay=0.5).get_decay(update + 1).
    @Test func averageWarmsUp() {
        let store = ParameterStore()
        let weight = store.declare("weight", [1], .zeros)
        store.initialize(seed: 0)
        let average = WeightAverage(store.values, count: store.count, .init(decay: 0.5, warmup: true))
        for (update, decay) in [(0, Float(0)), (1, 2 / 11), (2, 0.25), (6, 7 / 16), (8, 0.5), (1000, 0.5)] {
            #expect(average.decay(update: update) == decay)
        }
        // The average of a short run does not include the initial weights: the first update replaces them.
        weight.values[0] = 1
        average.step(update: 0, store.values)
        #expect(average.values[0] == 1)
        let steady = WeightAverage(store.values, count: store.count, .init(decay: 0.5, warmup: false))
        #expect(steady.decay(update: 0) == 0.5)
    }
}

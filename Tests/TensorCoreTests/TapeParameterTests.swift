import TensorCore
import Testing

@Suite struct TapeParameterTests {
    @Test func parametersHaveFixedPlacesOnCacheLines() {
        let store = ParameterStore()
        let a = store.declare("a", [3, 5], .ones)
        let b = store.declare("b", [16], .zeros)
        let c = store.declare("c", [1], .uniformBound(0.5))
        #expect([a, b, c].map(\.offset) == [0, 16, 32])
        #expect(store.count == 48 && store.parameterCount == 32)
        store.initialize(seed: 1)
        #expect(Array(a.values) == Array(repeating: 1, count: 15))
        #expect(store.values[15] == 0, "padding is not zero")
        #expect(abs(c.values[0]) < 0.5 && c.values[0] != 0)
        #expect(UInt(bitPattern: store.values) % 64 == 0 && UInt(bitPattern: store.gradients) % 64 == 0)
    }

    @Test(arguments: [1, 2, 7, 64, 300]) func interleavedSlicesHoldSomeOfEveryPart(count: Int) {
        let (plain, store) = (ParameterStore(), ParameterStore())
        for store in [plain, store] {
            for index in 0..<count {
                _ = store.declare(
                    "\(index)", index % 3 == 0 ? [20 + index % 5] : [4, 9], .uniform(fanIn: 1))
            }
        }
        store.interleave()
        #expect(store.count == plain.count && store.parameters.map(\.name) == plain.parameters.map(\.name))
        var end = 0
        for parameter in store.parametersByOffset {
            #expect(parameter.offset == end, "\(parameter.name)")
            end += parameter.paddedCount
        }
        #expect(end == store.count)
        // The location of a value does not affect its initialization.
        plain.initialize(seed: 3)
        store.initialize(seed: 3)
        for (a, b) in zip(plain.parameters, store.parameters) { #expect(Array(a.values) == Array(b.values)) }
        // Each slice and part must contain several of the 54 runs.
        guard count == 300 else { return }
        for (slices, parts) in [(2, 4), (4, 2)] {
            for slice in 0..<slices {
                let range = store.count * slice / slices..<store.count * (slice + 1) / slices
                for part in 0..<parts {
                    let own = store.parameters[count * part / parts..<count * (part + 1) / parts]
                    let inside = own.reduce(0) { $0 + $1.range.clamped(to: range).count }
                    let share = Double(inside * slices) / Double(own.reduce(0) { $0 + $1.count })
                    #expect(abs(share - 1) < 0.5, "part \(part) in slice \(slice) of \(slices): \(share)")
                }
            }
        }
    }

    @Test func initialValuesFollowSeedAndPlace() {
        func values(_ seed: UInt64, first: Int = 1000) -> (first: [Float], second: [Float]) {
            let store = ParameterStore()
            let a = store.declare("a", [first], .uniform(fanIn: 4))
            let b = store.declare("b", [500], .uniform(fanIn: 100))
            store.initialize(seed: seed)
            return (Array(a.values), Array(b.values))
        }
        let (a, b) = values(1)
        #expect(values(1) == (a, b))
        #expect(values(2).first != a && values(2).second != b)
        #expect(values(1, first: 300).second == b, "a parameter depends on the size of another")
        for (numbers, bound) in [(a, Float(0.5)), (b, 0.1)] {
            #expect(numbers.allSatisfy { abs($0) <= bound })
            let mean = numbers.reduce(0, +) / Float(numbers.count)
            let variance = numbers.reduce(0) { $0 + $1 * $1 } / Float(numbers.count)
            #expect(abs(mean) < 0.1 * bound && abs(variance / (bound * bound / 3) - 1) < 0.15)
        }
    }

    @Test(arguments: Backend.allCases.filter(\.isAvailable), [DType.float32, .bfloat16])
    func packedCopiesFollowTheValues(backend: Backend, dtype: DType) {
        let store = ParameterStore()
        let weight = store.declare("weight", [16, 16, 3, 3], .uniform(fanIn: 16))
        let bias = store.declare("bias", [16], .uniform(fanIn: 16))
        store.initialize(seed: 3)
        let tape = Tape(dtype: dtype, backend: backend, recordsGradients: false)
        let x = tape.input([1, 4, 4, 16])
        let y = tape.convolution(x, weight, bias)
        tape.keep(y)
        tape.plan()
        x.write(bfloat16Normals(x.count, seed: 4))
        let context = RunContext(batch: 1)
        func run() -> [Float] {
            tape.run(context)
            return y.readFloats()
        }

        let own = run()
        // Once `valuesChanged` is called.
        let version = store.version
        for index in 0..<store.count { store.values[index] *= -1 }
        store.valuesChanged()
        #expect(store.version > version)
        #expect(run() == own.map { -$0 })
    }
}

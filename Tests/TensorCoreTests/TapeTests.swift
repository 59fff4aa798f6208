import TensorCore
import Testing

/// Tests of the tape itself: gradients of shared tensors, the memory plan, and the order in which gradients
/// become ready.
@Suite struct TapeTests {
    /// Fills a tensor with normally distributed numbers.
    private static func fill(_ tensor: Tensor, seed: UInt64) {
        tensor.write(bfloat16Normals(tensor.count, seed: seed))
    }

    // MARK: Gradients

    @Test func gradientsOfSeveralUsesAddUp() throws {
        let tape = Tape(recordsGradients: true)
        let x = tape.input([2, 4], gradient: true)
        let mean = tape.add(x, x, scale: 0.5)  // x
        let four = tape.add(mean, tape.scale(x, by: 3))  // 4x
        let both = tape.concatenate(four, x)  // [4x, x]
        let twice = tape.concatenate(both, both)  // [4x, x, 4x, x]
        let seed = tape.input([2, 16])
        tape.keep(twice)
        tape.backward(from: [(twice, seed)])
        let gradient = try #require(tape.gradient(of: x))
        tape.plan()
        // Integers, so that sums are exact.
        let values = (0..<8).map { Float($0 - 3) }
        let weights = (0..<32).map { Float(($0 * 7) % 11 - 5) }
        x.write(values)
        seed.write(weights)
        tape.run(RunContext(batch: 2))
        for row in 0..<2 {
            for c in 0..<4 {
                let g = (0..<4).map { weights[row * 16 + 4 * $0 + c] }
                #expect(gradient.readFloats()[row * 4 + c] == 4 * g[0] + g[1] + 4 * g[2] + g[3])
                #expect(twice.readFloats()[row * 16 + c] == 4 * values[row * 4 + c])
            }
        }
    }

    /// Query, key and value are the same tensor: one instruction contributes three gradients to it.
    @Test func attentionOfATensorToItself() throws {
        func gradients(shared: Bool) throws -> [[Float]] {
            let tape = Tape(recordsGradients: true)
            let inputs = (0..<(shared ? 1 : 3)).map { _ in tape.input([2, 5, 6], gradient: true) }
            let y = tape.attention(inputs[0], inputs[shared ? 0 : 1], inputs[shared ? 0 : 2], heads: 2)
            let seed = tape.input(y.shape)
            tape.backward(from: [(y, seed)])
            let gradients = try inputs.map { try #require(tape.gradient(of: $0)) }
            tape.plan()
            for input in inputs { Self.fill(input, seed: 1) }
            Self.fill(seed, seed: 2)
            tape.run(RunContext(batch: 2))
            return gradients.map { $0.readFloats() }
        }
        let apart = try gradients(shared: false)
        let sum = apart[0].indices.map { apart[0][$0] + apart[1][$0] + apart[2][$0] }
        #expect(relativeError(try gradients(shared: true)[0], sum) < 1e-6)
    }

    enum Block: CaseIterable {
        case norm, normSilu, silu, addChannels, scaleShift, dropout, linear, attention, concatenate
    }

    /// y = x + f(x): one gradient is both the input of f's backward pass and an addend of its result, and may
    /// be overwritten by it.
    @Test(arguments: Block.allCases, [DType.float32, .bfloat16])
    func residualBlocks(block: Block, dtype: DType) throws {
        let store = ParameterStore()
        let norm = (
            store.declare("norm.weight", [8], .uniform(fanIn: 1)), store.declare("norm.bias", [8], .ones)
        )
        let square = store.declare("weight", [8, 8], .uniform(fanIn: 8))
        store.initialize(seed: 20)

        func gradients(residual: Bool) throws -> (x: [Float], seed: [Float], parameters: [Float]) {
            let tape = Tape(dtype: dtype, recordsGradients: true)
            let input = tape.input([2, 6, 8], gradient: true)
            let condition = tape.input([2, 16], gradient: true)
            let x = tape.scale(input, by: 1)
            func apply() -> Tensor {
                switch block {
                case .norm: return tape.groupNorm(x, norm.0, norm.1, groups: 4, eps: 1e-5)
                case .normSilu: return tape.groupNorm(x, norm.0, norm.1, groups: 2, eps: 1e-5, silu: true)
                case .silu: return tape.silu(x)
                case .addChannels: return tape.addChannels(x, tape.slice(condition, from: 3, width: 8))
                case .scaleShift: return tape.scaleShift(x, condition)
                case .dropout: return tape.dropout(x, 0.5)
                case .linear: return tape.linear(x, square, nil, addend: residual ? x : nil)
                case .attention: return tape.attention(x, x, x, heads: 2)
                case .concatenate: return tape.slice(tape.concatenate(x, x), from: 4, width: 8)
                }
            }
            let f = apply()
            let y = residual && block != .linear ? tape.add(f, x) : f
            let last = tape.scale(y, by: 1)  // so that the gradient of y is not an input of the tape
            let seed = tape.input(last.shape)
            tape.backward(from: [(last, seed)])
            let gradient = try #require(tape.gradient(of: input))
            tape.plan()
            Self.fill(input, seed: 21)
            Self.fill(condition, seed: 22)
            Self.fill(seed, seed: 23)
            tape.run(RunContext(batch: 2))
            let parameters = (0..<store.count).map { store.gradients[$0] }
            return (gradient.readFloats(), seed.readFloats(), parameters)
        }
        let plain = try gradients(residual: false)
        let residual = try gradients(residual: true)
        let tolerance = dtype == .float32 ? 1e-6 : 1e-2
        #expect(relativeError(residual.x, zip(plain.x, plain.seed).map { $0 + $1 }) < tolerance)
        #expect(relativeError(residual.parameters, plain.parameters) < tolerance)
    }

    @Test func gradientsFlowOnlyWhereTheyAreNeeded() throws {
        let store = ParameterStore()
        let weight = store.declare("weight", [3, 4], .zeros)
        let unused = store.declare("unused", [3, 4], .zeros)
        let tape = Tape(recordsGradients: true)
        let x = tape.input([2, 4])
        let y = tape.linear(x, weight, nil)
        let dead = tape.silu(y)  // no gradient flows through it
        let seed = tape.input([2, 3])
        tape.backward(from: [(y, seed)])
        #expect(!x.needsGradient && y.needsGradient && dead.needsGradient)
        #expect(tape.gradient(of: x) == nil && tape.gradient(of: dead) == nil)
        #expect(tape.readyAfter(weight) != nil && tape.readyAfter(unused) == nil)
        tape.plan()
        x.write([1, 2, 3, 4, 5, 6, 7, 8])
        seed.write([1, 0, 0, 0, 1, 0])
        tape.run(RunContext(batch: 2))
        #expect(Array(weight.gradient) == [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0])
    }

    // MARK: Nearest code

    @Test func nearestCodePassesGradientsStraightThrough() throws {
        let store = ParameterStore()
        let codebook = store.declare("codebook", [3, 2], .zeros)
        _ = codebook.values.update(fromContentsOf: [0, 0, 1, 1, -2, 3])
        let tape = Tape(recordsGradients: true)
        let x = tape.input([1, 4, 2], gradient: true)
        let (y, codes) = tape.nearestCode(x, codebook: codebook)
        tape.keep(y)
        let seed = tape.input(y.shape)
        tape.backward(from: [(y, seed)])
        let gradient = try #require(tape.gradient(of: x))
        tape.plan()
        x.write([0.4, 0.4, 0.6, 0.7, -9, 1, 0.1, -5])
        Self.fill(seed, seed: 4)
        tape.run(RunContext(batch: 1))
        #expect(codes.values == [0, 1, 2, 0])
        #expect(y.readFloats() == [0, 0, 1, 1, -2, 3, 0, 0])
        #expect(gradient.readFloats() == seed.readFloats())
    }

    // MARK: Memory

    @Test func activationsShareMemoryByLifetime() {
        let tape = Tape(recordsGradients: false)
        var h = tape.input([2, 8, 8, 16])
        var sum = h.byteCount
        for _ in 0..<8 {
            let big = tape.upsample(h)
            h = tape.averagePool(big)
            sum += big.byteCount + h.byteCount
        }
        tape.keep(h)
        tape.plan()
        // At any time: the input, one tensor that is read and one that is written.
        let largest = 4 * h.byteCount
        #expect(tape.byteCount >= largest + h.byteCount)
        #expect(tape.byteCount <= largest + 3 * h.byteCount)
        #expect(tape.byteCount < sum / 4)
    }

    @Test func elementwiseChainsWorkInPlace() {
        let tape = Tape(recordsGradients: false)
        let x = tape.input([64, 64])
        var h = x
        for _ in 0..<10 { h = tape.scale(h, by: -1) }
        tape.keep(h)
        tape.plan()
        // The input must not be overwritten, because the caller may run the tape again.
        #expect(tape.byteCount == 2 * x.byteCount)
        Self.fill(x, seed: 5)
        let values = x.readFloats()
        tape.run(RunContext(batch: 64))
        #expect(h.readFloats() == values)
        #expect(x.readFloats() == values)
    }

    /// The first tensor is kept, so no instruction may overwrite it, although each could work in place.
    @Test func keptTensorsStayAsTheyAre() {
        let tape = Tape(recordsGradients: false)
        let x = tape.input([3, 5])
        var kept: [Tensor] = []
        var h = x
        for _ in 0..<4 {
            h = tape.scale(h, by: 2)
            tape.keep(h)
            kept.append(h)
        }
        tape.plan()
        x.write((0..<15).map(Float.init))
        tape.run(RunContext(batch: 3))
        for (index, tensor) in kept.enumerated() {
            #expect(tensor.readFloats() == (0..<15).map { Float($0 * 2 << index) })
        }
    }

    /// A convolution whose addend is also its input must not overwrite it while it is still being read.
    @Test(arguments: Backend.allCases.filter(\.isAvailable), [1, 3])
    func convolutionPlusItsOwnInput(backend: Backend, kernel: Int) {
        let store = ParameterStore()
        let weight = store.declare("weight", [8, 8, kernel, kernel], .uniform(fanIn: 8))
        store.initialize(seed: 6)
        func result(addend: Bool) -> [Float] {
            let tape = Tape(backend: backend, recordsGradients: false)
            let x = tape.input([2, 5, 4, 8])
            // Not the input itself, which must never be overwritten.
            let h = tape.scale(x, by: 1)
            let y = tape.convolution(h, weight, nil, padding: .all(kernel / 2), addend: addend ? h : nil)
            tape.keep(y)
            tape.plan()
            Self.fill(x, seed: 7)
            tape.run(RunContext(batch: 2))
            return addend ? y.readFloats() : zip(y.readFloats(), x.readFloats()).map { $0 + $1 }
        }
        #expect(relativeError(result(addend: true), result(addend: false)) < 1e-6)
    }

    @Test(arguments: Backend.allCases.filter(\.isAvailable))
    func linearPlusItsOwnInput(backend: Backend) {
        let store = ParameterStore()
        let weight = store.declare("weight", [8, 8], .uniform(fanIn: 8))
        store.initialize(seed: 6)
        let tape = Tape(backend: backend, recordsGradients: false)
        let x = tape.input([2, 5, 8])
        let h = tape.scale(x, by: 1)
        let sum = tape.linear(h, weight, nil, addend: h)
        let plain = tape.add(tape.linear(x, weight, nil), x)
        tape.keep(sum)
        tape.keep(plain)
        tape.plan()
        Self.fill(x, seed: 7)
        tape.run(RunContext(batch: 2))
        #expect(relativeError(sum.readFloats(), plain.readFloats()) < 1e-6)
    }

    @Test func tapesTakeTurnsInOneArena() {
        let store = ParameterStore()
        let weight = store.declare("weight", [4, 3, 3, 3], .uniform(fanIn: 27))
        store.initialize(seed: 8)
        func tape(batch: Int, _ arena: Arena) -> (tape: Tape, run: () -> [Float]) {
            let tape = Tape(recordsGradients: false, arena: arena)
            let x = tape.input([batch, 6, 6, 3])
            let y = tape.silu(tape.convolution(x, weight, nil))
            tape.keep(y)
            tape.plan()
            return (
                tape,
                {
                    Self.fill(x, seed: UInt64(batch))
                    tape.run(RunContext(batch: batch))
                    return y.readFloats()
                }
            )
        }
        let arena = Arena()
        let (small, runSmall) = tape(batch: 1, arena)
        let bytes = arena.byteCount
        // Large enough to reallocate the arena: one image takes 108 floats, its result 144.
        let (large, runLarge) = tape(batch: bytes / (4 * 252) + 1, arena)
        #expect(arena.byteCount > bytes && arena.byteCount >= large.byteCount)
        #expect(small.byteCount < large.byteCount)
        let alone = tape(batch: 1, Arena()).run()
        #expect(runSmall() == alone)
        _ = runLarge()
        #expect(runSmall() == alone)
    }

    // MARK: Readiness

    /// A parameter's gradient is final after the instruction that the tape reports, and these instructions
    /// proceed from the end of the store to its start.
    @Test func gradientsBecomeReadyFromTheEndOfTheStore() {
        let store = ParameterStore()
        let conv = [
            store.declare("conv.weight", [6, 3, 3, 3], .uniform(fanIn: 27)),
            store.declare("conv.bias", [6], .uniform(fanIn: 27)),
        ]
        let norm = [store.declare("norm.weight", [6], .ones), store.declare("norm.bias", [6], .zeros)]
        let residual = [
            store.declare("residual.weight", [6, 6, 3, 3], .uniform(fanIn: 54)),
            store.declare("residual.bias", [6], .zeros),
        ]
        let linear = [store.declare("linear.weight", [5, 6], .uniform(fanIn: 6))]
        store.initialize(seed: 9)

        let tape = Tape(recordsGradients: true)
        let x = tape.input([2, 4, 4, 3])
        let first = tape.convolution(x, conv[0], conv[1])
        let normed = tape.groupNorm(first, norm[0], norm[1], groups: 2, eps: 1e-5, silu: true)
        let sum = tape.convolution(normed, residual[0], residual[1], addend: first)
        let y = tape.linear(sum, linear[0], nil)
        let seed = tape.input(y.shape)
        tape.backward(from: [(y, seed)])
        let ready = store.parameters.map { tape.readyAfter($0) }
        tape.plan()

        let order = ready.reversed().compactMap { $0 }
        #expect(order.count == store.parameters.count)
        #expect(order == order.sorted())
        #expect(order.allSatisfy { (0..<tape.instructionCount).contains($0) })
        // Weight and bias become ready together; layers one after another.
        #expect(Set(order).count == 4)

        Self.fill(x, seed: 10)
        Self.fill(seed, seed: 11)
        for parameter in store.parameters { parameter.gradient.update(repeating: .nan) }
        var whenReady: [String: [Float]] = [:]
        var instructions: [Int] = []
        tape.run(RunContext(batch: 2)) { index in
            instructions.append(index)
            for (parameter, after) in zip(store.parameters, ready) where after == index {
                whenReady[parameter.name] = Array(parameter.gradient)
            }
        }
        #expect(instructions == Array(0..<tape.instructionCount))
        for parameter in store.parameters {
            let gradient = Array(parameter.gradient)
            #expect(gradient.allSatisfy(\.isFinite) && gradient.contains { $0 != 0 }, "\(parameter.name)")
            #expect(whenReady[parameter.name] == gradient, "\(parameter.name) changes after it was ready")
        }
    }
}

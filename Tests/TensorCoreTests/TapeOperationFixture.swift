import FileFormats
import Foundation
import Supervision
import TensorCore
import Testing
import TestSupport

/// The golden values of one operation; Fixtures/make_operations.py describes each tensor.
struct OperationFixture {
    let name: String
    private let file: SafetensorsFile

    private static let opened = Result {
        try SafetensorsFile(path: fixturePath("operations/operations.safetensors"))
    }

    init(_ name: String) throws {
        self.name = name
        file = try Self.opened.get()
        try #require(
            !names("").isEmpty,
            "no golden values of \(name): run Tests/Fixtures/operations/make_operations.py")
    }

    /// The names with the prefix NAME/prefix, without it, sorted.
    private func names(_ prefix: String) -> [String] {
        let start = "\(name)/\(prefix)"
        return file.names.filter { $0.hasPrefix(start) }.map { String($0.dropFirst(start.count)) }.sorted()
    }

    /// Inputs with a gradient, inputs without one, and parameters.
    var inputs: [String] { names("in.") }
    var constants: [String] { names("const.") }
    var parameters: [String] { names("param.") }

    func contains(_ tensor: String) -> Bool { file.contains("\(name)/\(tensor)") }
    func shape(_ tensor: String) throws -> [Int] { try file.info(of: "\(name)/\(tensor)").shape }
    func floats(_ tensor: String) throws -> [Float] { try file.floats(of: "\(name)/\(tensor)") }
}

/// The operands for recording an operation.
struct Operands {
    let inputs: [String: Tensor]
    let parameters: [String: Parameter]

    /// An input; the fixture must contain it.
    subscript(_ name: String) -> Tensor {
        guard let tensor = inputs[name] else { preconditionFailure("the fixture has no input \(name)") }
        return tensor
    }

    /// A parameter; the fixture must contain it.
    func parameter(_ name: String) -> Parameter {
        guard let parameter = parameters[name] else {
            preconditionFailure("the fixture has no parameter \(name)")
        }
        return parameter
    }
}

/// The result of recording an operation: a tensor, a loss, or both.
struct RecordedOperation {
    var output: Tensor?
    var loss: SampleLoss?
    var sums: LossSums?

    init(output: Tensor) { self.output = output }

    init(loss: SampleLoss) {
        self.loss = loss
        sums = loss.sums
    }

    init(output: Tensor, sums: LossSums) {
        self.output = output
        self.sums = sums
    }
}

/// One operation on a separate tape, with its golden inputs.
final class OperationRun {
    enum Placement {
        /// The operands are the tape's inputs, and the result is the tape's output.
        case alone
        /// The operands are results of other operations and are also read by a later one; the result is the
        /// input of another operation. The operation may then work in place, and accumulates into existing
        /// gradients.
        case amongOthers
        /// As in `amongOthers`, on a tape that records no gradients.
        case inference
    }

    /// All results of a run.
    struct Results {
        var output: [Float] = []
        var sums: [Double] = []
        /// Of inputs and parameters.
        var gradients: [String: [Float]] = [:]

        /// Bit patterns, because NaN is not equal to itself and 0 equals -0.
        var bits: [String: [UInt64]] {
            var all = gradients.mapValues { $0.map { UInt64($0.bitPattern) } }
            all["output"] = output.map { UInt64($0.bitPattern) }
            all["sums"] = sums.map(\.bitPattern)
            return all
        }
    }

    private let fixture: OperationFixture
    private let arena = Arena()
    let store = ParameterStore()
    private let tape: Tape
    private let context: RunContext
    private var leaves: [(name: String, tensor: Tensor, values: [Float])] = []
    private var gradients: [(name: String, tensor: Tensor)] = []
    private var output: Tensor?
    private var sums: LossSums?

    /// The contribution of an input's later use to its gradient.
    private(set) var addedGradients: [String: [Float]] = [:]
    static let laterFactor: Float = 0.5

    init(
        _ fixture: OperationFixture, dtype: DType, backend: Backend, _ placement: Placement,
        _ record: (Tape, Operands) -> RecordedOperation
    ) throws {
        self.fixture = fixture
        let hasGradients = placement != .inference
        tape = Tape(dtype: dtype, backend: backend, recordsGradients: hasGradients, arena: arena)
        context = RunContext(batch: 4)

        var parameters: [String: Parameter] = [:]
        for name in fixture.parameters {
            parameters[name] = store.declare(name, try fixture.shape("param.\(name)"), .zeros)
        }
        for (name, parameter) in parameters {
            _ = parameter.values.update(fromContentsOf: try fixture.floats("param.\(name)"))
        }
        store.valuesChanged()

        var operands: [String: Tensor] = [:]
        for name in fixture.inputs {
            let leaf = tape.input(try fixture.shape("in.\(name)"), gradient: true)
            leaves.append((name, leaf, try fixture.floats("in.\(name)")))
            operands[name] = placement == .alone ? leaf : tape.scale(leaf, by: 1)
        }
        for name in fixture.constants {
            let leaf = tape.input(try fixture.shape("const.\(name)"), dtype: .float32)
            leaves.append((name, leaf, try fixture.floats("const.\(name)")))
            operands[name] = leaf
        }
        let made = record(tape, Operands(inputs: operands, parameters: parameters))
        output = made.output.map { placement == .alone ? $0 : tape.scale($0, by: 1) }
        sums = made.sums
        if let output { tape.keep(output) }

        if hasGradients {
            try recordGradients(made, operands, laterReaders: placement == .amongOthers)
        }
        tape.plan()
    }

    private func recordGradients(
        _ made: RecordedOperation, _ operands: [String: Tensor], laterReaders: Bool
    ) throws {
        var seeds: [(output: Tensor, gradient: Tensor)] = []
        if let output, fixture.contains("grad_out") {
            let seed = tape.input(output.shape, dtype: output.dtype)
            leaves.append(("grad_out", seed, try fixture.floats("grad_out")))
            seeds.append((output, seed))
        }
        if let loss = made.loss { seeds.append((loss.output, loss.gradient)) }
        if laterReaders {
            for (index, name) in fixture.inputs.enumerated() {
                guard let operand = operands[name] else { continue }
                let later = tape.scale(operand, by: Self.laterFactor)
                let seed = tape.input(later.shape, dtype: later.dtype)
                let values = bfloat16Normals(seed.count, seed: UInt64(100 + index))
                leaves.append((name, seed, values))
                seeds.append((later, seed))
                addedGradients[name] = values.map { $0 * Self.laterFactor }
            }
        }
        tape.backward(from: seeds)
        for leaf in leaves where fixture.inputs.contains(leaf.name) && leaf.tensor.needsGradient {
            let gradient = try #require(tape.gradient(of: leaf.tensor), "no gradient reaches \(leaf.name)")
            gradients.append((leaf.name, gradient))
        }
    }

    /// Fills with NaN all memory that the next run must write before it reads it: the arena and, if
    /// requested, the parameter gradients.
    func poison(parameterGradients: Bool) {
        let tape = Tape(recordsGradients: false, arena: arena)
        let everything = tape.input([max(1, self.tape.byteCount / 4)])
        tape.plan()
        everything.floats.update(repeating: .nan)
        guard parameterGradients else { return }
        for parameter in store.parameters { parameter.gradient.update(repeating: .nan) }
    }

    /// Runs on the golden inputs.
    func run(accumulates: Bool = false) -> Results {
        load()
        context.accumulatesGradients = accumulates
        tape.run(context)
        var results = Results()
        results.output = output?.readFloats() ?? []
        results.sums = sums?.values ?? []
        for gradient in gradients { results.gradients[gradient.name] = gradient.tensor.readFloats() }
        // Without a backward pass there are no parameter gradients.
        if tape.recordsGradients {
            for parameter in store.parameters {
                results.gradients[parameter.name] = Array(parameter.gradient)
            }
        }
        return results
    }

    private func load() { for leaf in leaves { leaf.tensor.write(leaf.values) } }

    // MARK: Finite differences

    /// The scalar whose gradient the fixture contains: sum(output·grad_out) + sum(sums·sum_weight).
    private func total() throws -> Double {
        load()
        context.accumulatesGradients = false
        tape.run(context)
        var total = 0.0
        if let output, fixture.contains("grad_out") {
            let weights = try fixture.floats("grad_out")
            for (value, weight) in zip(output.readFloats(), weights) {
                total += Double(value) * Double(weight)
            }
        }
        if let sums {
            for (value, weight) in zip(sums.values, try fixture.floats("sum_weight")) {
                total += value * Double(weight)
            }
        }
        return total
    }

    /// Central differences of the total with respect to up to `limit` elements of an input or parameter.
    ///
    /// - Returns: the indices of the elements and their differences.
    func differences(_ name: String, limit: Int) throws -> [(index: Int, value: Double)] {
        let step: Float = 0x1p-6
        let leaf = leaves.firstIndex { $0.name == name && $0.tensor.needsGradient }
        let parameter = store.parameters.first { $0.name == name }
        let count = try fixture.shape("grad.\(name)").reduce(1, *)
        func move(_ index: Int, to value: Float) {
            if let leaf { leaves[leaf].values[index] = value }
            if let parameter {
                parameter.values[index] = value
                store.valuesChanged()
            }
        }
        return try stride(from: 0, to: count, by: max(1, (count + limit - 1) / limit)).map { index in
            let original = leaf.map { leaves[$0].values[index] } ?? parameter?.values[index] ?? .nan
            let (above, below) = (original + step, original - step)
            move(index, to: above)
            let high = try total()
            move(index, to: below)
            let low = try total()
            move(index, to: original)
            return (index, (high - low) / Double(above - below))
        }
    }
}

/// Normally distributed numbers that bf16 represents exactly.
func bfloat16Normals(_ count: Int, seed: UInt64) -> [Float] {
    var random = CounterRandom(seed: seed, purpose: .test)
    return (0..<count).map { _ in Float(bitPattern: UInt32(KernelBuffer.bfloat16(random.normal())) << 16) }
}

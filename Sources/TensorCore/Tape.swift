/// What changes from run to run of a tape: keys of the random draws, and whether parameter gradients add up.
package final class RunContext {
    /// The run's seed and the training step: keys of dropout.
    package var seed: UInt64
    package var step: UInt64 = 0
    /// Global index of each sample of the batch: keys of dropout, so that masks depend on no rank.
    package var samples: [Int64]
    /// Add to parameter gradients instead of overwriting them (micro-batches after the first).
    package var accumulatesGradients = false
    /// Scratch memory that lives for one instruction.
    package internal(set) var scratch = UnsafeMutableRawPointer(bitPattern: 64)!

    package init(seed: UInt64 = 0, batch: Int) {
        self.seed = seed
        samples = (0..<Int64(batch)).map { $0 }
    }
}

/// A recorded computation with its gradients: recorded once for a set of shapes, run at every step.
///
/// Recording a model's forward pass and then calling `backward(from:)` yields a fixed list of instructions.
/// Because the list is fixed, the order in which gradients become ready is known before the first step,
/// `plan()` can give every activation a place in an arena by lifetime, primitives are created once, and
/// running allocates nothing.
package final class Tape {
    struct Instruction {
        let name: String
        let work: Work
        let reads: [Storage]
        let writes: [Storage]
        let inPlace: (output: Storage, input: Storage)?
        /// Floating-point operations a run, as `record` was told.
        let flops: Int
        let run: (RunContext) -> Void
    }

    /// Type of the activations.
    package let dtype: DType
    package let backend: Backend
    /// Whether gradients will be asked for; without it nothing is kept for a backward pass.
    package let recordsGradients: Bool
    let arena: Arena

    private(set) var instructions: [Instruction] = []
    private var backwards: [(output: Tensor, body: (Tensor) -> Void)] = []
    private var gradients: [ObjectIdentifier: Tensor] = [:]
    private var pinned: [Storage] = []
    private var everyTensor: [Tensor] = []  // keeps identities unique while recording
    /// Parameters do not own their store; a tape that uses them keeps it alive.
    private var stores: [ObjectIdentifier: ParameterStore] = [:]
    private var lastGradientWrite: [ObjectIdentifier: Int] = [:]
    private var firstUses: [ObjectIdentifier: Int] = [:]
    private var scratchOffset = 0
    private var scratchBytes = 0
    private var planned = false
    var dropoutLayers: UInt32 = 0
    /// The convolutions and linear layers recorded so far, forward and backward.
    package internal(set) var convolutions: [ConvolutionCase] = []

    /// Seconds spent by each instruction in the runs since the last reset.
    private(set) var seconds: [Double] = []
    private(set) var runs = 0
    /// Told of each instruction as it ends; for traces.
    package var observer: ((InstructionSpan) -> Void)?

    package init(
        dtype: DType = .float32, backend: Backend = .fastest, recordsGradients: Bool, arena: Arena = Arena()
    ) {
        self.dtype = dtype
        self.backend = backend
        self.recordsGradients = recordsGradients
        self.arena = arena
    }

    // MARK: Recording

    /// A tensor that the caller fills before each run; with `gradient`, its gradient can be read after.
    package func input(_ shape: [Int], dtype: DType? = nil, gradient: Bool = false) -> Tensor {
        let tensor = make(shape, dtype: dtype ?? self.dtype, needsGradient: gradient && recordsGradients)
        tensor.storage.touch(at: -1)
        keep(tensor)
        return tensor
    }

    /// Lets a tensor live to the end of the run, so that the caller can read it.
    package func keep(_ tensor: Tensor) {
        precondition(!planned, "the tape is already planned")
        pinned.append(tensor.storage)
    }

    /// A view of the same elements under another shape.
    package func reshape(_ x: Tensor, _ shape: [Int]) -> Tensor {
        precondition(shape.reduce(1, *) == x.count, "cannot view \(x.shape) as \(shape)")
        let y = Tensor(shape: shape, dtype: x.dtype, needsGradient: x.needsGradient, storage: x.storage)
        everyTensor.append(y)
        differentiate(y) { gy in self.contribute(self.reshape(gy, x.shape), to: x) }
        return y
    }

    /// A new tensor for an instruction to write.
    func make(_ shape: [Int], dtype: DType, needsGradient: Bool) -> Tensor {
        let bytes = shape.reduce(dtype.byteCount, *)
        let tensor = Tensor(
            shape: shape, dtype: dtype, needsGradient: needsGradient, storage: Storage(byteCount: bytes))
        everyTensor.append(tensor)
        return tensor
    }

    /// Appends an instruction. `inPlace` tells that `output` may take the bytes of `input` where nothing
    /// later needs them; `gradientsOf` names the parameters whose gradients it writes; `flops` counts two for
    /// each multiply-add of the direct algorithm, whatever the kernel does.
    func record(
        _ name: String, _ work: Work, reads: [Tensor], writes: [Tensor],
        inPlace: (output: Tensor, input: Tensor)? = nil, gradientsOf: [Parameter] = [], scratch: Int = 0,
        flops: Int = 0,
        _ run: @escaping (RunContext) -> Void
    ) {
        precondition(!planned, "the tape is already planned")
        let index = instructions.count
        for tensor in reads + writes { tensor.storage.touch(at: index) }
        for parameter in gradientsOf { lastGradientWrite[ObjectIdentifier(parameter.declared)] = index }
        scratchBytes = max(scratchBytes, scratch)
        instructions.append(
            Instruction(
                name: name, work: work, reads: reads.map(\.storage), writes: writes.map(\.storage),
                inPlace: inPlace.map { ($0.output.storage, $0.input.storage) }, flops: flops, run: run))
    }

    /// Keeps the parameters' store for as long as the tape; every operation with parameters calls it before it records
    /// its first instruction.
    func use(_ parameters: Parameter?...) {
        for case let parameter? in parameters {
            stores[ObjectIdentifier(parameter.store)] = parameter.store
            let key = ObjectIdentifier(parameter.declared)
            firstUses[key] = min(firstUses[key] ?? .max, instructions.count)
        }
    }

    // MARK: Gradients

    /// Registers how the gradient of `output` flows on; skipped where nothing before it needs one.
    func differentiate(_ output: Tensor, _ body: @escaping (Tensor) -> Void) {
        guard recordsGradients, output.needsGradient else { return }
        backwards.append((output, body))
    }

    /// A tensor for the gradient of `x`, and what has flowed into it so far: the instruction that writes the
    /// slot must add the addend. nil where `x` needs no gradient.
    func gradientSlot(of x: Tensor) -> (slot: Tensor, addend: Tensor?)? {
        guard x.needsGradient else { return nil }
        let slot = make(x.shape, dtype: x.dtype, needsGradient: false)
        let addend = gradients.updateValue(slot, forKey: ObjectIdentifier(x))
        return (slot, addend)
    }

    /// Adds `gradient` to what has flowed into `x`.
    func contribute(_ gradient: Tensor, to x: Tensor) {
        guard x.needsGradient else { return }
        let key = ObjectIdentifier(x)
        guard let sofar = gradients[key] else {
            gradients[key] = gradient
            return
        }
        let sum = make(x.shape, dtype: x.dtype, needsGradient: false)
        recordAdd("gradient sum", sofar, gradient, scaleA: 1, scaleB: 1, into: sum)
        gradients[key] = sum
    }

    /// Records the backward pass, last operation first, from gradients that the caller or a loss has placed.
    ///
    /// - Parameter seeds: outputs with their gradients.
    package func backward(from seeds: [(output: Tensor, gradient: Tensor)]) {
        precondition(recordsGradients, "the tape does not record gradients")
        for seed in seeds { contribute(seed.gradient, to: seed.output) }
        while let (output, body) = backwards.popLast() {
            if let gradient = gradients[ObjectIdentifier(output)] { body(gradient) }
        }
    }

    /// The recorded gradient of an input that asked for one, kept to the end of the run.
    package func gradient(of tensor: Tensor) -> Tensor? {
        let gradient = gradients[ObjectIdentifier(tensor)]
        if let gradient { keep(gradient) }
        return gradient
    }

    /// Index of the instruction after which a parameter's gradient is whole; nil where none flows.
    package func readyAfter(_ parameter: Parameter) -> Int? {
        lastGradientWrite[ObjectIdentifier(parameter)]
    }

    /// Index of an instruction before which nothing reads a parameter's values; nil where nothing ever does.
    package func firstUse(of parameter: Parameter) -> Int? { firstUses[ObjectIdentifier(parameter.declared)] }

    /// Number of instructions, forward and backward.
    package var instructionCount: Int { instructions.count }

    // MARK: Running

    /// Gives every tensor its place. Called once, after recording.
    package func plan() {
        guard !planned else { return }
        for storage in pinned { storage.touch(at: instructions.count) }
        let bytes = MemoryPlan.assign(instructions, pinned: pinned, arena: arena)
        scratchOffset = bytes
        arena.reserve(bytes + scratchBytes)
        planned = true
        resetProfile()
        everyTensor = []
        gradients = [:]
        backwards = []
    }

    /// Runs the instructions in order.
    ///
    /// - Parameters:
    ///   - after: called after each instruction with its index; gradient reductions start here.
    ///   - before: called before each instruction with its index; weights that are on their way are waited for here.
    package func run(
        _ context: RunContext, after: ((Int) -> Void)? = nil, before: ((Int) -> Void)? = nil
    ) {
        precondition(planned, "plan() comes before run()")
        arena.reserve(scratchOffset + scratchBytes)
        context.scratch = arena.base + scratchOffset
        runs += 1
        var clock = ContinuousClock.now
        for index in instructions.indices {
            if let before {
                before(index)
                clock = ContinuousClock.now
            }
            instructions[index].run(context)
            let now = ContinuousClock.now
            seconds[index] += (now - clock).seconds
            observer?(InstructionSpan(instructions[index], start: clock, end: now))
            if let after { after(index) }
            clock = after == nil && observer == nil ? now : ContinuousClock.now
        }
    }

    /// Forgets the seconds of the runs so far.
    package func resetProfile() {
        seconds = Array(repeating: 0, count: instructions.count)
        runs = 0
    }

    /// Bytes of activations and scratch that this tape needs.
    package var byteCount: Int { scratchOffset + scratchBytes }
}

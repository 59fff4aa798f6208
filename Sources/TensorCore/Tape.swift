/// The parameters that change between runs of a tape: keys of random draws, and whether parameter gradients
/// accumulate.
package final class RunContext {
    /// The run's seed and the training step, which are keys of dropout.
    package var seed: UInt64
    package var step: UInt64 = 0
    /// Global index of each sample of the batch, a key of dropout, so that masks do not depend on the rank.
    package var samples: [Int64]
    /// Add to parameter gradients instead of overwriting them (micro-batches after the first).
    package var accumulatesGradients = false
    /// Scratch memory, valid for one instruction.
    package internal(set) var scratch = UnsafeMutableRawPointer(bitPattern: 64)!

    package init(seed: UInt64 = 0, batch: Int) {
        self.seed = seed
        samples = (0..<Int64(batch)).map { $0 }
    }
}

/// A recorded computation with its gradients, recorded once for a set of shapes and run at every step.
///
/// Recording a model's forward pass and then calling `backward(from:)` yields a fixed list of instructions.
/// Because the list is fixed, the order in which gradients become ready is known before the first step,
/// `plan()` can place every activation in an arena by its lifetime, primitives are created once, and running
/// allocates nothing.
package final class Tape {
    struct Instruction {
        let name: String
        let work: Work
        let reads: [Storage]
        let writes: [Storage]
        let inPlace: (output: Storage, input: Storage)?
        /// FLOPs per run, as passed to `record`.
        let flops: Int
        let run: (RunContext) -> Void
    }

    /// Type of the activations.
    package let dtype: DType
    package let backend: Backend
    /// Whether gradients are computed; if not, nothing is kept for a backward pass.
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
    /// Called after each instruction; for traces.
    package var observer: ((InstructionSpan) -> Void)?

    package init(
        dtype: DType = .float32, backend: Backend = .fastest, recordsGradients: Bool, arena: Arena = Arena()
    ) {
        (self.dtype, self.backend) = (dtype, backend)
        (self.recordsGradients, self.arena) = (recordsGradients, arena)
    }

    // MARK: Recording

    /// A tensor that the caller fills before each run. With `gradient`, its gradient can be read after the
    /// run.
    package func input(_ shape: [Int], dtype: DType? = nil, gradient: Bool = false) -> Tensor {
        let tensor = make(shape, dtype: dtype ?? self.dtype, needsGradient: gradient && recordsGradients)
        tensor.storage.touch(at: -1)
        keep(tensor)
        return tensor
    }

    /// Keeps a tensor's memory until the end of the run, so that the caller can read it.
    package func keep(_ tensor: Tensor) {
        precondition(!planned, "the tape is already planned")
        pinned.append(tensor.storage)
    }

    /// A view of the same elements with another shape.
    package func reshape(_ x: Tensor, _ shape: [Int]) -> Tensor {
        precondition(shape.reduce(1, *) == x.count, "cannot view \(x.shape) as \(shape)")
        let y = Tensor(shape: shape, dtype: x.dtype, needsGradient: x.needsGradient, storage: x.storage)
        everyTensor.append(y)
        differentiate(y) { gy in self.contribute(self.reshape(gy, x.shape), to: x) }
        return y
    }

    /// A new tensor that an instruction writes.
    func make(_ shape: [Int], dtype: DType, needsGradient: Bool) -> Tensor {
        let bytes = shape.reduce(dtype.byteCount, *)
        let tensor = Tensor(
            shape: shape, dtype: dtype, needsGradient: needsGradient, storage: Storage(byteCount: bytes))
        everyTensor.append(tensor)
        return tensor
    }

    /// Appends an instruction.
    ///
    /// - Parameters:
    ///   - inPlace: `output` may reuse the memory of `input` if nothing later needs it.
    ///   - gradientsOf: the parameters whose gradients the instruction writes.
    ///   - flops: two for each multiply-add of the direct algorithm, regardless of the kernel's algorithm.
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

    /// Keeps the parameters' store alive as long as the tape. Every operation with parameters calls it before
    /// recording its first instruction.
    func use(_ parameters: Parameter?...) {
        for case let parameter? in parameters {
            stores[ObjectIdentifier(parameter.store)] = parameter.store
            let key = ObjectIdentifier(parameter.declared)
            firstUses[key] = min(firstUses[key] ?? .max, instructions.count)
        }
    }

    // MARK: Gradients

    /// Registers the backward function of `output`; skipped if nothing before it needs a gradient.
    func differentiate(_ output: Tensor, _ body: @escaping (Tensor) -> Void) {
        guard recordsGradients, output.needsGradient else { return }
        backwards.append((output, body))
    }

    /// Returns a tensor for the gradient of `x`, and the gradient accumulated so far: the instruction that
    /// writes the slot must add the addend. Returns nil if `x` needs no gradient.
    func gradientSlot(of x: Tensor) -> (slot: Tensor, addend: Tensor?)? {
        guard x.needsGradient else { return nil }
        let slot = make(x.shape, dtype: x.dtype, needsGradient: false)
        let addend = gradients.updateValue(slot, forKey: ObjectIdentifier(x))
        return (slot, addend)
    }

    /// Adds `gradient` to the accumulated gradient of `x`.
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

    /// Records the backward pass in reverse order of the operations, starting from gradients provided by the
    /// caller or a loss.
    ///
    /// - Parameter seeds: outputs with their gradients.
    package func backward(from seeds: [(output: Tensor, gradient: Tensor)]) {
        precondition(recordsGradients, "the tape does not record gradients")
        for seed in seeds { contribute(seed.gradient, to: seed.output) }
        while let (output, body) = backwards.popLast() {
            if let gradient = gradients[ObjectIdentifier(output)] { body(gradient) }
        }
    }

    /// The gradient of an input that was created with `gradient`, kept until the end of the run.
    package func gradient(of tensor: Tensor) -> Tensor? {
        let gradient = gradients[ObjectIdentifier(tensor)]
        if let gradient { keep(gradient) }
        return gradient
    }

    /// Index of the instruction after which a parameter's gradient is complete; nil if it has no gradient.
    package func readyAfter(_ parameter: Parameter) -> Int? {
        lastGradientWrite[ObjectIdentifier(parameter)]
    }

    /// Index of an instruction before which nothing reads a parameter's values; nil if nothing reads them.
    package func firstUse(of parameter: Parameter) -> Int? { firstUses[ObjectIdentifier(parameter.declared)] }

    /// Number of instructions, forward and backward.
    package var instructionCount: Int { instructions.count }

    // MARK: Running

    /// Assigns memory to every tensor. Call this once, after recording.
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
    ///   - after: called after each instruction with its index; starts gradient reductions.
    ///   - before: called before each instruction with its index; waits for weights in flight.
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

    /// Resets the recorded times.
    package func resetProfile() {
        seconds = Array(repeating: 0, count: instructions.count)
        runs = 0
    }

    /// Bytes of activations and scratch that this tape needs.
    package var byteCount: Int { scratchOffset + scratchBytes }
}

/// The time of one call of a convolution with a backend.
package struct ConvolutionTiming: Sendable {
    package let backend: Backend
    /// The kernel that the backend uses for the case, e.g. "jit_bf16:avx512_core_bf16".
    package let implementation: String
    /// Seconds of the fastest call.
    package let seconds: Double
}

extension ConvolutionCase {
    /// The kernel that a backend uses for the case.
    package func implementation(_ backend: Backend) -> String {
        ConvolutionPlan(backend, self).implementation
    }

    /// Times every backend that has its own kernel for the case, with one call of each in turn. Weights are
    /// packed before the timing, because a training step packs them only once for all their uses.
    ///
    /// - Parameters:
    ///   - arena: memory for the tensors, shared by cases that are timed one after another.
    ///   - budget: seconds after which no further round of calls starts. At least three rounds run, of which
    ///     the first is not counted.
    ///   - referenceLimit: FLOPs above which im2col with OpenBLAS is skipped, unless `Backend.fastest` uses
    ///     it.
    package func time(arena: Arena, budget: Double = 0.4, referenceLimit: Int = 100_000_000_000)
        -> [ConvolutionTiming]
    {
        var plans: [(backend: Backend, plan: ConvolutionPlan)] = []
        for backend in [Backend.winograd, .oneDNN, .openBLAS] where backend.isAvailable {
            let plan = ConvolutionPlan(backend, self)
            let isReference = backend == .openBLAS && plan.implementation != implementation(.fastest)
            if isReference, flops > referenceLimit { continue }
            // A backend that does not support a case falls back to the next one.
            plans.removeAll { $0.plan.implementation == plan.implementation }
            plans.append((backend, plan))
        }

        // One instruction for each backend, all on the same tensors.
        let tape = Tape(dtype: dtype, recordsGradients: false, arena: arena)
        let tensors = makeTensors(on: tape)
        for (_, plan) in plans { record(plan, tensors, on: tape) }
        tape.plan()
        tensors.fill()

        let context = RunContext(batch: batch)
        tape.run(context)
        var best = plans.map { _ in Double.infinity }
        let start = ContinuousClock.now
        for round in 0..<12 where round < 2 || (ContinuousClock.now - start).seconds < budget {
            tape.resetProfile()
            tape.run(context)
            best = zip(best, tape.seconds).map(min)
        }
        return zip(plans, best).map {
            ConvolutionTiming(backend: $0.backend, implementation: $0.plan.implementation, seconds: $1)
        }
    }

    /// x [B, H, W, C], y and addend [B, H', W', O] (or their gradients), and the parameters.
    private struct Tensors {
        let x, y: Tensor
        let addend: Tensor?
        let weight: Parameter
        let bias: Parameter?

        /// Numbers in ±1 with a long period, because processors spend less power and time on zeros.
        func fill() {
            var random = CounterRandom(seed: 0, purpose: .test)
            let pattern = (0..<4099).map { _ in random.uniform(-1, 1) }
            for tensor in [x, y] + (addend.map { [$0] } ?? []) {
                tensor.write((0..<tensor.count).map { pattern[$0 % pattern.count] })
            }
        }
    }

    private func makeTensors(on tape: Tape) -> Tensors {
        let store = ParameterStore()
        let (C, O) = (inChannels, outChannels)
        let initializer = Initializer.uniform(fanIn: C * kernelHeight * kernelWidth)
        let weight = store.declare("weight", [O, C, kernelHeight, kernelWidth], initializer)
        let bias = hasBias ? store.declare("bias", [O], initializer) : nil
        store.initialize(seed: 0)
        if weightType == .bfloat16 { store.narrow() }
        tape.use(weight)  // keeps the store alive
        let y = tape.input([batch, outHeight, outWidth, O])
        return Tensors(
            x: tape.input([batch, height, width, C]), y: y, addend: hasAddend ? tape.input(y.shape) : nil,
            weight: weight, bias: bias)
    }

    private func record(_ plan: ConvolutionPlan, _ on: Tensors, on tape: Tape) {
        let direction = direction
        if direction != .backwardWeights { plan.pack(on.weight) }
        tape.record(
            "convolution", .convolutionForward, reads: [on.x], writes: [on.y], scratch: plan.scratchBytes,
            flops: flops
        ) { context in
            switch direction {
            case .forward: plan.forward(on.x, on.weight, on.bias, addend: on.addend, on.y, context)
            case .backwardData: plan.backwardData(on.y, on.weight, on.x, context)
            case .backwardWeights: plan.backwardWeights(on.x, on.y, on.weight, on.bias, context)
            }
        }
    }
}

import CKernels
import Support

/// A convolution primitive for one direction and shape with its packed weights, created once.
final class ConvolutionPlan {
    private let handle: OpaquePointer
    private let packed: UnsafeMutableRawPointer?
    private var packedVersion = -1
    let scratchBytes: Int

    init(_ backend: Backend, _ made: ConvolutionCase) {
        var error = [CChar](repeating: 0, count: 256)
        var shape = made.kernelShape
        let plan = ck_conv_create(
            backend.kernel, made.kernelKind, &shape, made.hasBias ? 1 : 0, made.hasAddend ? 1 : 0, &error,
            error.count)
        guard let plan else {
            preconditionFailure("convolution \(made.summary): \(String(terminated: error))")
        }
        handle = plan
        scratchBytes = ck_conv_scratch_bytes(plan)
        let bytes = made.direction == .backwardWeights ? 0 : ck_conv_packed_bytes(plan)
        packed = bytes > 0 ? .allocate(byteCount: bytes, alignment: 64) : nil
    }

    /// The implementation's name, e.g. "winograd 4x4" or "jit_bf16:avx512_core_bf16".
    var implementation: String { String(cString: ck_conv_implementation(handle)) }

    deinit {
        ck_conv_destroy(handle)
        packed?.deallocate()
    }

    /// Packs the weights if they have changed since the last call. Some plans use the weights without
    /// packing.
    func pack(_ weight: Parameter) {
        guard let packed, packedVersion != weight.store.version else { return }
        ck_conv_pack(handle, weight.matrix, packed)
        packedVersion = weight.store.version
    }

    private func weights(_ weight: Parameter) -> UnsafeRawPointer? {
        packed.map { UnsafeRawPointer($0) } ?? weight.matrix
    }

    func forward(
        _ x: Tensor, _ weight: Parameter, _ bias: Parameter?, addend: Tensor?, _ y: Tensor,
        _ context: RunContext
    ) {
        ck_conv_forward(
            handle, x.pointer, weights(weight), bias?.values.baseAddress, addend?.pointer, y.pointer,
            context.scratch)
    }

    func backwardData(_ gy: Tensor, _ weight: Parameter, _ gx: Tensor, _ context: RunContext) {
        ck_conv_backward_data(handle, gy.pointer, weights(weight), gx.pointer, context.scratch)
    }

    func backwardWeights(
        _ x: Tensor, _ gy: Tensor, _ weight: Parameter, _ bias: Parameter?, _ context: RunContext
    ) {
        ck_conv_backward_weights(
            handle, x.pointer, gy.pointer, weight.gradient.baseAddress, bias?.gradient.baseAddress,
            context.accumulatesGradients ? 1 : 0, context.scratch)
    }
}

extension Tape {
    /// Convolution: y[b,i,j,o] = bias[o] + Σ x[b, i·s+u, j·s+v, c]·weight[o,c,u,v] + addend[b,i,j,o].
    ///
    /// - Parameters:
    ///   - x: [B, H, W, C]
    ///   - weight: [O, C, KH, KW], PyTorch's layout
    ///   - bias: [O], or nil
    ///   - addend: [B, H', W', O], added to the result in the same pass, for a residual connection
    /// - Returns: [B, H', W', O], H' = (H + padding − KH)/stride + 1
    package func convolution(
        _ x: Tensor, _ weight: Parameter, _ bias: Parameter?, stride: Int = 1, padding: Padding = .all(1),
        addend: Tensor? = nil
    ) -> Tensor {
        convolution(
            x, weight, bias, stride: stride, padding: padding, addend: addend,
            work: (.convolutionForward, .convolutionBackwardData, .convolutionBackwardWeights))
    }

    private func convolution(
        _ x: Tensor, _ weight: Parameter, _ bias: Parameter?, stride: Int, padding: Padding, addend: Tensor?,
        work: (forward: Work, backwardData: Work, backwardWeights: Work)
    ) -> Tensor {
        precondition(x.shape.count == 4 && weight.shape.count == 4, "\(weight.name): x is \(x.shape)")
        use(weight, bias)
        precondition(
            weight.shape[1] == x.shape[3], "\(weight.name) takes \(weight.shape[1]) channels, not \(x.shape)")
        let forward = ConvolutionCase(
            direction: .forward, batch: x.shape[0], height: x.shape[1], width: x.shape[2],
            inChannels: x.shape[3], outChannels: weight.shape[0], kernelHeight: weight.shape[2],
            kernelWidth: weight.shape[3], stride: stride, padding: padding, dtype: x.dtype,
            weightType: weight.store.matrixType,
            hasBias: bias != nil, hasAddend: addend != nil)
        let y = make(
            [forward.batch, forward.outHeight, forward.outWidth, forward.outChannels], dtype: x.dtype,
            needsGradient: recordsGradients)
        if let addend { precondition(addend.shape == y.shape, "\(weight.name): addend \(addend.shape)") }

        let plan = plan(forward)
        record(weight.name, .pack, reads: [], writes: []) { _ in plan.pack(weight) }
        // If the addend shares its memory with the input, it is still read while the result is written.
        let consumed = addend.flatMap { $0.storage === x.storage ? nil : $0 }
        record(
            weight.name, work.forward, reads: [x] + (addend.map { [$0] } ?? []), writes: [y],
            inPlace: consumed.map { (y, $0) }, scratch: plan.scratchBytes, flops: forward.flops
        ) { plan.forward(x, weight, bias, addend: addend, y, $0) }

        differentiate(y) { gy in
            if let addend { self.contribute(gy, to: addend) }

            let weights = self.plan(forward.turned(.backwardWeights))
            self.record(
                weight.name, work.backwardWeights, reads: [x, gy], writes: [],
                gradientsOf: [weight] + (bias.map { [$0] } ?? []), scratch: weights.scratchBytes,
                flops: forward.flops
            ) { weights.backwardWeights(x, gy, weight, bias, $0) }

            guard x.needsGradient else { return }
            let data = self.plan(forward.turned(.backwardData))
            let gx = self.make(x.shape, dtype: x.dtype, needsGradient: false)
            self.record(weight.name, .pack, reads: [], writes: []) { _ in data.pack(weight) }
            self.record(
                weight.name, work.backwardData, reads: [gy], writes: [gx], scratch: data.scratchBytes,
                flops: forward.flops
            ) { data.backwardData(gy, weight, gx, $0) }
            self.contribute(gx, to: x)
        }
        return y
    }

    private func plan(_ made: ConvolutionCase) -> ConvolutionPlan {
        convolutions.append(made)
        return ConvolutionPlan(backend, made)
    }

    /// Linear layer: y = x·weightᵀ + bias + addend, computed as a 1×1 convolution over the rows.
    ///
    /// - Parameters:
    ///   - x: [..., I]
    ///   - weight: [O, I] (or [O, I, 1, 1])
    ///   - bias: [O], or nil
    ///   - addend: [..., O]
    /// - Returns: [..., O]
    package func linear(_ x: Tensor, _ weight: Parameter, _ bias: Parameter?, addend: Tensor? = nil) -> Tensor
    {
        let (I, O) = (weight.shape[1], weight.shape[0])
        let rows = x.count / I
        let view = weight.shape.count == 4 ? weight : weight.viewed(as: [O, I, 1, 1])
        let y = convolution(
            reshape(x, [1, rows, 1, I]), view, bias, stride: 1, padding: .all(0),
            addend: addend.map { reshape($0, [1, rows, 1, O]) }, work: (.matmul, .matmul, .matmul))
        return reshape(y, x.shape.dropLast() + [O])
    }
}

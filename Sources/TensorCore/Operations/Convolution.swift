import CKernels

/// Zeros around an image, in pixels.
public struct Padding: Equatable, Sendable {
    public var top: Int, left: Int, bottom: Int, right: Int

    public init(top: Int, left: Int, bottom: Int, right: Int) {
        (self.top, self.left, self.bottom, self.right) = (top, left, bottom, right)
    }
    /// The same on all four sides.
    public static func all(_ width: Int) -> Padding {
        Padding(top: width, left: width, bottom: width, right: width)
    }
    /// Bottom and right only: diffusers' `downsample_padding` 0, and the encoder of every autoencoder.
    public static let bottomRight = Padding(top: 0, left: 0, bottom: 1, right: 1)
}

/// A convolution primitive for one direction and shape, made once, with its packed weights.
final class ConvolutionPlan {
    private let handle: OpaquePointer
    private let packed: UnsafeMutableRawPointer?
    private var packedVersion = -1
    let scratchBytes: Int

    init(_ backend: Backend, _ kind: ck_conv_kind, _ shape: ck_conv_shape, bias: Bool, addend: Bool = false) {
        var error = [CChar](repeating: 0, count: 256)
        var shape = shape
        let made = ck_conv_create(
            backend.kernel, kind, &shape, bias ? 1 : 0, addend ? 1 : 0, &error, error.count)
        guard let made else {
            let line = error.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
            preconditionFailure("convolution \(shape): \(String(decoding: line, as: UTF8.self))")
        }
        handle = made
        scratchBytes = ck_conv_scratch_bytes(made)
        let bytes = kind == CK_CONV_BACKWARD_WEIGHTS ? 0 : ck_conv_packed_bytes(made)
        packed = bytes > 0 ? .allocate(byteCount: bytes, alignment: 64) : nil
    }

    deinit {
        ck_conv_destroy(handle)
        packed?.deallocate()
    }

    /// Packs the weights where they have changed since the last time; some plans take them as they are.
    func pack(_ weight: Parameter) {
        guard let packed, packedVersion != weight.store.version else { return }
        ck_conv_pack(handle, weight.values.baseAddress, packed)
        packedVersion = weight.store.version
    }

    private func weights(_ weight: Parameter) -> UnsafeRawPointer? {
        packed.map { UnsafeRawPointer($0) } ?? UnsafeRawPointer(weight.values.baseAddress)
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
    ///   - addend: [B, H', W', O], summed into the result in the same pass: a residual connection
    /// - Returns: [B, H', W', O], H' = (H + padding − KH)/stride + 1
    public func convolution(
        _ x: Tensor, _ weight: Parameter, _ bias: Parameter?, stride: Int = 1, padding: Padding = .all(1),
        addend: Tensor? = nil
    ) -> Tensor {
        precondition(x.shape.count == 4 && weight.shape.count == 4, "\(weight.name): x is \(x.shape)")
        use(weight, bias)
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        let (O, KH, KW) = (weight.shape[0], weight.shape[2], weight.shape[3])
        precondition(weight.shape[1] == C, "\(weight.name) takes \(weight.shape[1]) channels, not \(C)")
        let outH = (H + padding.top + padding.bottom - KH) / stride + 1
        let outW = (W + padding.left + padding.right - KW) / stride + 1
        let shape = ck_conv_shape(
            B: B, H: H, W: W, C: C, O: O, kernelH: KH, kernelW: KW, stride: stride,
            padTop: padding.top, padLeft: padding.left, padBottom: padding.bottom, padRight: padding.right,
            dtype: x.dtype.kernel)
        let y = make([B, outH, outW, O], dtype: x.dtype, needsGradient: recordsGradients)
        if let addend { precondition(addend.shape == y.shape, "\(weight.name): addend \(addend.shape)") }

        let plan = ConvolutionPlan(
            backend, CK_CONV_FORWARD, shape, bias: bias != nil, addend: addend != nil)
        record(weight.name, .pack, reads: [], writes: []) { _ in plan.pack(weight) }
        // An addend that is the input too is still being read while the result is written.
        let consumed = addend.flatMap { $0.storage === x.storage ? nil : $0 }
        record(
            weight.name, .convolutionForward, reads: [x] + (addend.map { [$0] } ?? []), writes: [y],
            inPlace: consumed.map { (y, $0) }, scratch: plan.scratchBytes
        ) { plan.forward(x, weight, bias, addend: addend, y, $0) }

        differentiate(y) { gy in
            if let addend { self.contribute(gy, to: addend) }
            self.convolutionBackward(x, weight, bias, shape, gy)
        }
        return y
    }

    private func convolutionBackward(
        _ x: Tensor, _ weight: Parameter, _ bias: Parameter?, _ shape: ck_conv_shape, _ gy: Tensor
    ) {
        let weights = ConvolutionPlan(backend, CK_CONV_BACKWARD_WEIGHTS, shape, bias: bias != nil)
        record(
            weight.name, .convolutionBackwardWeights, reads: [x, gy], writes: [],
            gradientsOf: [weight] + (bias.map { [$0] } ?? []), scratch: weights.scratchBytes
        ) { weights.backwardWeights(x, gy, weight, bias, $0) }

        guard x.needsGradient else { return }
        let data = ConvolutionPlan(backend, CK_CONV_BACKWARD_DATA, shape, bias: false)
        let gx = make(x.shape, dtype: x.dtype, needsGradient: false)
        record(weight.name, .pack, reads: [], writes: []) { _ in data.pack(weight) }
        record(
            weight.name, .convolutionBackwardData, reads: [gy], writes: [gx], scratch: data.scratchBytes
        ) { data.backwardData(gy, weight, gx, $0) }
        contribute(gx, to: x)
    }

    /// Linear layer: y = x·weightᵀ + bias + addend, computed as a 1×1 convolution over the rows.
    ///
    /// - Parameters:
    ///   - x: [..., I]
    ///   - weight: [O, I] (or [O, I, 1, 1])
    ///   - bias: [O], or nil
    ///   - addend: [..., O]
    /// - Returns: [..., O]
    public func linear(_ x: Tensor, _ weight: Parameter, _ bias: Parameter?, addend: Tensor? = nil) -> Tensor
    {
        let (I, O) = (weight.shape[1], weight.shape[0])
        let rows = x.count / I
        let view = weight.shape.count == 4 ? weight : weight.viewed(as: [O, I, 1, 1])
        let y = convolution(
            reshape(x, [1, rows, 1, I]), view, bias, padding: .all(0),
            addend: addend.map { reshape($0, [1, rows, 1, O]) })
        return reshape(y, x.shape.dropLast() + [O])
    }
}

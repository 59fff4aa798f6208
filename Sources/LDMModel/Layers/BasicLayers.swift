import TensorCore

/// Convolution with bias, torch.nn.Conv2d: initialized uniformly in ±1/sqrt(in·kernel²).
package struct Conv2D {
    package let weight: Parameter
    package let bias: Parameter
    let stride: Int
    let padding: Padding

    /// - Parameter padding: zero padding; by default it preserves the image size at stride 1.
    package init(
        _ scope: ParameterScope, _ inChannels: Int, _ outChannels: Int, kernel: Int = 3, stride: Int = 1,
        padding: Padding? = nil
    ) {
        let fanIn = inChannels * kernel * kernel
        weight = scope.declare("weight", [outChannels, inChannels, kernel, kernel], .uniform(fanIn: fanIn))
        bias = scope.declare("bias", [outChannels], .uniform(fanIn: fanIn))
        self.stride = stride
        self.padding = padding ?? .all(kernel / 2)
    }

    /// - Parameters:
    ///   - x: [B, H, W, in]
    ///   - addend: [B, H', W', out], added to the result in the same pass
    /// - Returns: [B, H', W', out]
    package func callAsFunction(_ tape: Tape, _ x: Tensor, addend: Tensor? = nil) -> Tensor {
        tape.convolution(x, weight, bias, stride: stride, padding: padding, addend: addend)
    }
}

/// Linear layer with bias, torch.nn.Linear: initialized uniformly in ±1/sqrt(in).
package struct Linear {
    package let weight: Parameter
    package let bias: Parameter

    package init(_ scope: ParameterScope, _ inFeatures: Int, _ outFeatures: Int) {
        weight = scope.declare("weight", [outFeatures, inFeatures], .uniform(fanIn: inFeatures))
        bias = scope.declare("bias", [outFeatures], .uniform(fanIn: inFeatures))
    }

    /// - Parameters:
    ///   - x: [..., in]
    ///   - addend: [..., out], added to the result in the same pass
    /// - Returns: [..., out]
    package func callAsFunction(_ tape: Tape, _ x: Tensor, addend: Tensor? = nil) -> Tensor {
        tape.linear(x, weight, bias, addend: addend)
    }
}

/// Group normalization with scale and offset, torch.nn.GroupNorm.
package struct GroupNorm {
    package let weight: Parameter
    package let bias: Parameter
    let groups: Int
    let eps: Float

    package init(_ scope: ParameterScope, _ channels: Int, groups: Int, eps: Float) {
        weight = scope.declare("weight", [channels], .ones)
        bias = scope.declare("bias", [channels], .zeros)
        self.groups = groups
        self.eps = eps
    }

    /// - Parameters:
    ///   - x: [B, ..., C]
    ///   - silu: apply SiLU in the same pass
    package func callAsFunction(_ tape: Tape, _ x: Tensor, silu: Bool = false) -> Tensor {
        tape.groupNorm(x, weight, bias, groups: groups, eps: eps, silu: silu)
    }
}

/// Halves height and width by a 3×3 convolution with stride 2, diffusers' Downsample2D.
package struct Downsample2D {
    let conv: Conv2D

    /// - Parameter padding: on all sides; 0 pads one row at the bottom and one column on the right, as in
    ///   diffusers.
    package init(_ scope: ParameterScope, _ channels: Int, padding: Int) {
        conv = Conv2D(
            scope["conv"], channels, channels, stride: 2,
            padding: padding == 0 ? .bottomRight : .all(padding))
    }

    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, H/2, W/2, C]
    package func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor { conv(tape, x) }
}

/// Doubles height and width by nearest-neighbor upsampling, followed by a 3×3 convolution: diffusers'
/// Upsample2D.
package struct Upsample2D {
    let conv: Conv2D

    package init(_ scope: ParameterScope, _ channels: Int) {
        conv = Conv2D(scope["conv"], channels, channels)
    }

    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, 2H, 2W, C]
    package func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor { conv(tape, tape.upsample(x)) }
}

/// Sinusoidal timestep embedding followed by two linear layers, diffusers' Timesteps and TimestepEmbedding
/// (Ho et al., 2020, appendix B).
package struct TimestepEmbedding {
    let linear1: Linear
    let linear2: Linear
    let channels: Int
    let flipSinToCos: Bool
    let freqShift: Float

    /// - Parameters:
    ///   - channels: width of the sinusoidal embedding
    ///   - timeChannels: width of the result
    ///   - flipSinToCos: whether cosines precede sines
    ///   - freqShift: frequencies are 10000^(-i/(channels/2 - freqShift))
    package init(
        _ scope: ParameterScope, channels: Int, timeChannels: Int, flipSinToCos: Bool, freqShift: Float
    ) {
        linear1 = Linear(scope["linear_1"], channels, timeChannels)
        linear2 = Linear(scope["linear_2"], timeChannels, timeChannels)
        (self.channels, self.flipSinToCos, self.freqShift) = (channels, flipSinToCos, freqShift)
    }

    /// - Parameter timestep: [B], fp32
    /// - Returns: [B, timeChannels]
    package func callAsFunction(_ tape: Tape, _ timestep: Tensor) -> Tensor {
        let sinusoids = tape.timestepEmbedding(
            timestep, dim: channels, flipSinToCos: flipSinToCos, freqShift: freqShift)
        return linear2(tape, tape.silu(linear1(tape, sinusoids)))
    }
}

/// A prefix in the tree of parameter names: parameters that a layer declares in the scope
/// `down_blocks.0.resnets.0` get that prefix.
///
/// Layers must declare parameters in the order of the forward pass. The flat store depends on it: gradients
/// then become ready from the end of the store to its start.
package struct ParameterScope {
    package let store: ParameterStore
    /// Dotted path with a trailing dot, or empty at the root.
    private let prefix: String

    /// The root scope of a model.
    package init(_ store: ParameterStore) {
        self.init(store, prefix: "")
    }

    private init(_ store: ParameterStore, prefix: String) {
        self.store = store
        self.prefix = prefix
    }

    /// The scope of a child module.
    package subscript(name: String) -> ParameterScope {
        ParameterScope(store, prefix: "\(prefix)\(name).")
    }

    /// The scope of an element of a list of modules.
    package subscript(name: String, index: Int) -> ParameterScope { self["\(name).\(index)"] }

    func declare(_ name: String, _ shape: [Int], _ initializer: Initializer) -> Parameter {
        store.declare(prefix + name, shape, initializer)
    }
}

/// An LRU cache for values that are expensive to create, such as one tape per shape.
struct RecentCache<Key: Equatable, Value> {
    private var entries: [(key: Key, value: Value)] = []  // oldest first
    private let capacity: Int

    init(capacity: Int) { self.capacity = capacity }

    /// The cached values.
    var values: [Value] { entries.map(\.value) }

    /// Returns the value for a key; creates it if necessary, evicting the least recently used value.
    mutating func value(for key: Key, make: () -> Value) -> Value {
        if let index = entries.firstIndex(where: { $0.key == key }) {
            let entry = entries.remove(at: index)
            entries.append(entry)
            return entry.value
        }
        if entries.count >= capacity { entries.removeFirst() }
        let value = make()
        entries.append((key, value))
        return value
    }
}

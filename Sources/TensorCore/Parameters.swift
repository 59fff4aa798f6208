import CKernels

/// A trainable tensor: a named view at a fixed offset of the flat store. Names are diffusers' names, shapes
/// PyTorch's ([O, C, KH, KW] for a convolution, [O, I] for a linear layer).
public final class Parameter {
    public let name: String
    public let shape: [Int]
    /// Offset in the store, in elements.
    public let offset: Int
    public let initializer: Initializer
    unowned let store: ParameterStore

    private let viewOf: Parameter?

    init(
        name: String, shape: [Int], offset: Int, initializer: Initializer, store: ParameterStore,
        viewOf: Parameter? = nil
    ) {
        self.viewOf = viewOf
        self.name = name
        self.shape = shape
        self.offset = offset
        self.initializer = initializer
        self.store = store
    }

    /// The same values and gradient under another shape.
    func viewed(as shape: [Int]) -> Parameter {
        precondition(shape.reduce(1, *) == count, "\(name): cannot view \(self.shape) as \(shape)")
        return Parameter(
            name: name, shape: shape, offset: offset, initializer: initializer, store: store, viewOf: self)
    }

    /// The declared parameter, where this one is a view of it.
    var declared: Parameter { viewOf?.declared ?? self }

    public var count: Int { shape.reduce(1, *) }
    public var range: Range<Int> { offset..<offset + count }

    /// The current values, fp32.
    public var values: UnsafeMutableBufferPointer<Float> {
        UnsafeMutableBufferPointer(start: store.values + offset, count: count)
    }

    /// The gradient's place, fp32; allocated on first use.
    public var gradient: UnsafeMutableBufferPointer<Float> {
        UnsafeMutableBufferPointer(start: store.gradients + offset, count: count)
    }
}

/// How a parameter starts.
public enum Initializer: Sendable {
    case zeros
    case ones
    /// Uniform in ±1/sqrt(fanIn): PyTorch's default for convolutions and linear layers, weights and biases.
    case uniform(fanIn: Int)
    /// Uniform in ±bound.
    case uniformBound(Float)
}

/// All parameters of a model in one flat fp32 buffer. The same offsets drive gradient buckets, the sharding of
/// optimizer state, checkpoints and exports.
///
/// Parameters are declared in forward order, so the backward pass makes their gradients ready from the end
/// of the buffer to its start.
public final class ParameterStore {
    public private(set) var parameters: [Parameter] = []
    /// Elements of the flat buffer, padding included: each parameter starts on a 64-byte line.
    public private(set) var count = 0
    /// Grows whenever values change; plans that keep packed copies compare it.
    public private(set) var version = 0

    private var ownValues: UnsafeMutablePointer<Float>?
    private var substitute: UnsafeMutablePointer<Float>?
    private var ownGradients: UnsafeMutablePointer<Float>?

    public init() {}

    deinit {
        ownValues?.deallocate()
        ownGradients?.deallocate()
    }

    /// Declares a parameter; all are declared before the first value is used.
    public func declare(_ name: String, _ shape: [Int], _ initializer: Initializer) -> Parameter {
        precondition(ownValues == nil, "\(name) is declared after the store was allocated")
        let parameter = Parameter(
            name: name, shape: shape, offset: count, initializer: initializer, store: self)
        parameters.append(parameter)
        count += (parameter.count + 15) & ~15
        return parameter
    }

    /// Number of trainable values, without padding.
    public var parameterCount: Int { parameters.reduce(0) { $0 + $1.count } }

    /// The flat values, fp32, `count` elements, padding zero.
    public var values: UnsafeMutablePointer<Float> {
        if let substitute { return substitute }
        if let ownValues { return ownValues }
        let fresh = Self.allocate(count)
        ownValues = fresh
        return fresh
    }

    /// The flat gradients, fp32, `count` elements.
    public var gradients: UnsafeMutablePointer<Float> {
        if let ownGradients { return ownGradients }
        let fresh = Self.allocate(count)
        ownGradients = fresh
        return fresh
    }

    /// A zeroed flat buffer of this store's size (a moment, an average), 64-byte aligned; the caller frees it.
    public func makeBuffer() -> UnsafeMutablePointer<Float> { Self.allocate(count) }

    /// Tells that values were changed.
    public func valuesChanged() { version += 1 }

    /// Runs `body` with other values in place of the store's own (an average of the weights, for sampling).
    public func withValues<R>(_ other: UnsafeMutablePointer<Float>, _ body: () throws -> R) rethrows -> R {
        _ = values
        substitute = other
        version += 1
        defer {
            substitute = nil
            version += 1
        }
        return try body()
    }

    /// Draws all values afresh. Each parameter's numbers depend on the seed and on its place in the model alone.
    public func initialize(seed: UInt64) {
        for (index, parameter) in parameters.enumerated() {
            var random = CounterRandom(seed: seed, purpose: .initialization, sample: UInt64(index))
            let values = parameter.values
            switch parameter.initializer {
            case .zeros: values.update(repeating: 0)
            case .ones: values.update(repeating: 1)
            case .uniform(let fanIn):
                let bound = 1 / Float(fanIn).squareRoot()
                for i in values.indices { values[i] = random.uniform(-bound, bound) }
            case .uniformBound(let bound):
                for i in values.indices { values[i] = random.uniform(-bound, bound) }
            }
        }
        valuesChanged()
    }

    private static func allocate(_ count: Int) -> UnsafeMutablePointer<Float> {
        let bytes = max(64, count * MemoryLayout<Float>.stride)
        let raw = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        raw.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
        return raw.assumingMemoryBound(to: Float.self)
    }
}

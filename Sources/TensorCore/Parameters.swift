import CKernels

/// A trainable tensor: a named view at a fixed offset of the flat store. Names are those of diffusers, shapes
/// are those of PyTorch ([O, C, KH, KW] for a convolution, [O, I] for a linear layer).
package final class Parameter {
    package let name: String
    package let shape: [Int]
    /// Offset in the store, in elements.
    package var offset: Int { declared.place.flat }
    /// Offset among the store's vectors; nil for a matrix.
    var vectorOffset: Int? { declared.place.vector }
    package let initializer: Initializer
    unowned let store: ParameterStore

    fileprivate var place: (flat: Int, vector: Int?)
    private let viewOf: Parameter?

    fileprivate init(
        name: String, shape: [Int], place: (flat: Int, vector: Int?), initializer: Initializer,
        store: ParameterStore, viewOf: Parameter? = nil
    ) {
        (self.viewOf, self.name, self.shape, self.place) = (viewOf, name, shape, place)
        (self.initializer, self.store) = (initializer, store)
    }

    /// A view of the same values and gradient with another shape.
    func viewed(as shape: [Int]) -> Parameter {
        precondition(shape.reduce(1, *) == count, "\(name): cannot view \(self.shape) as \(shape)")
        return Parameter(
            name: name, shape: shape, place: place, initializer: initializer, store: store, viewOf: self)
    }

    /// The declared parameter if this one is a view, otherwise the parameter itself.
    var declared: Parameter { viewOf?.declared ?? self }

    package var count: Int { shape.reduce(1, *) }
    /// Number of elements, rounded up to whole 64-byte cache lines.
    package var paddedCount: Int { (count + 15) & ~15 }
    package var range: Range<Int> { offset..<offset + count }

    /// The current values in fp32; for a matrix, only while the store is not narrow.
    package var values: UnsafeMutableBufferPointer<Float> {
        UnsafeMutableBufferPointer(start: store.floats(of: self), count: count)
    }

    /// The current values in the store's matrix type.
    var matrix: UnsafeRawPointer {
        precondition(vectorOffset == nil, "\(name) is no matrix")
        return store.matrixPointer(offset)
    }

    /// The gradient in fp32; allocated on first use.
    package var gradient: UnsafeMutableBufferPointer<Float> {
        UnsafeMutableBufferPointer(start: store.gradients + offset, count: count)
    }
}

/// The initial values of a parameter.
package enum Initializer: Sendable {
    case zeros
    case ones
    /// Uniform in ±1/sqrt(fanIn): PyTorch's default for convolutions and linear layers, weights and biases.
    case uniform(fanIn: Int)
    /// Uniform in ±bound.
    case uniformBound(Float)
    /// Standard normal: PyTorch's default for embeddings.
    case normal
}

/// All parameters of a model in one flat fp32 buffer. Gradient buckets, the sharding of optimizer state,
/// checkpoints and exports use the same offsets.
///
/// When training in bf16, the optimizer owns the fp32 masters, possibly sharded over ranks. The store then
/// only contains the values that kernels read: matrices (two dimensions or more) in bf16 and vectors in fp32.
/// See `narrow`.
///
/// Parameters are declared in forward order, so the backward pass completes their gradients from the last
/// declared to the first. `interleave` determines their order in the buffer.
package final class ParameterStore {
    /// In declaration order.
    package private(set) var parameters: [Parameter] = []
    /// In the order of their offsets.
    package private(set) var parametersByOffset: [Parameter] = []
    /// Number of elements in the flat buffer, including padding: each parameter starts on a 64-byte line.
    package private(set) var count = 0
    /// Incremented whenever values change; plans with packed copies compare it.
    package private(set) var version = 0

    private var ownValues: UnsafeMutablePointer<Float>?
    private var ownGradients: UnsafeMutablePointer<Float>?
    /// Narrow store: all elements in bf16, of which only the matrices are used.
    private var halves: UnsafeMutablePointer<UInt16>?
    /// Narrow store: the vectors, each on a 64-byte line.
    private var vectors: UnsafeMutablePointer<Float>?
    private var vectorCount = 0

    package init() {}

    deinit {
        ownValues?.deallocate()
        ownGradients?.deallocate()
        halves?.deallocate()
        vectors?.deallocate()
    }

    /// Declares a parameter. All parameters must be declared before the first value is used.
    package func declare(_ name: String, _ shape: [Int], _ initializer: Initializer) -> Parameter {
        precondition(ownValues == nil, "\(name) is declared after the store was allocated")
        let parameter = Parameter(
            name: name, shape: shape, place: (0, nil), initializer: initializer, store: self)
        parameters.append(parameter)
        append(parameter)
        return parameter
    }

    /// Places a parameter after those that already have an offset.
    private func append(_ parameter: Parameter) {
        let isVector = parameter.shape.count < 2
        parameter.place = (count, isVector ? vectorCount : nil)
        parametersByOffset.append(parameter)
        count += parameter.paddedCount
        if isVector { vectorCount += parameter.paddedCount }
    }

    /// Orders the parameters so that any slice of the buffer contains some of every part of the model.
    ///
    /// Ranks own slices. If a slice were one part of the model, all ranks would send their gradients to one
    /// rank at a time while the backward pass computes that part, and at least half of the network would be
    /// idle. Instead, runs of neighbouring parameters, each a 64th of the model or a single larger tensor,
    /// are placed in the order of their bit-reversed numbers: halves, quarters and eighths of the buffer each
    /// contain runs from all parts of the model (van der Corput sequence).
    ///
    /// Call this after all parameters are declared and before the first value is used.
    package func interleave() {
        precondition(ownValues == nil && ownGradients == nil, "interleaving after the store was allocated")
        var runs: [[Parameter]] = []
        var size = 0
        for parameter in parameters {
            if runs.isEmpty || size >= count / 64 {
                runs.append([])
                size = 0
            }
            runs[runs.count - 1].append(parameter)
            size += parameter.paddedCount
        }
        (count, vectorCount, parametersByOffset) = (0, 0, [])
        for run in runs.enumerated().sorted(by: { $0.offset.bitReversed < $1.offset.bitReversed }) {
            for parameter in run.element { append(parameter) }
        }
    }

    /// Number of trainable values, without padding.
    package var parameterCount: Int { parameters.reduce(0) { $0 + $1.count } }

    /// Number of vector elements, which a narrow store keeps in fp32, each vector on a 64-byte line.
    package var vectorElements: Int { vectorCount }

    /// The flat fp32 values, `count` elements with zero padding; not available in a narrow store.
    package var values: UnsafeMutablePointer<Float> {
        precondition(halves == nil, "a narrow store has no fp32 values")
        if let ownValues { return ownValues }
        let fresh: UnsafeMutablePointer<Float> = Self.allocate(count)
        ownValues = fresh
        return fresh
    }

    /// The flat fp32 gradients, `count` elements.
    package var gradients: UnsafeMutablePointer<Float> {
        if let ownGradients { return ownGradients }
        let fresh: UnsafeMutablePointer<Float> = Self.allocate(count)
        ownGradients = fresh
        return fresh
    }

    /// Increments `version`. Call this after changing values.
    package func valuesChanged() { version += 1 }

    /// Initializes all values randomly. The numbers of each parameter depend only on the seed and on its
    /// index in the model.
    package func initialize(seed: UInt64) {
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
            case .normal: random.fillNormal(values)
            }
        }
        valuesChanged()
    }

    private static func allocate<Element>(_ count: Int) -> UnsafeMutablePointer<Element> {
        let bytes = max(64, count * MemoryLayout<Element>.stride)
        let raw = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        raw.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
        return raw.assumingMemoryBound(to: Element.self)
    }

    // MARK: Narrow stores

    /// The type of matrices for kernels.
    package var matrixType: DType { halves == nil ? .float32 : .bfloat16 }

    /// Rounds matrices to bf16 and frees the fp32 values; from then on `setValues` updates the store. Call
    /// this before a tape is recorded with these parameters.
    package func narrow() {
        guard halves == nil else { return }
        let wide = values
        (halves, vectors) = (Self.allocate(count), Self.allocate(vectorCount))
        setValues(0..<count, from: wide)
        ownValues?.deallocate()
        ownValues = nil
        valuesChanged()
    }

    /// Sets the values that kernels read for the flat elements `range` from `source[0..<range.count]`. The
    /// caller calls `valuesChanged`.
    package func setValues(_ range: Range<Int>, from source: UnsafePointer<Float>) {
        guard let halves, let vectors else {
            let target = values + range.lowerBound
            if target != source { target.update(from: source, count: range.count) }
            return
        }
        ck_cast(CK_F32, CK_BF16, range.count, source, halves + range.lowerBound)
        for parameter in parameters {
            guard let place = parameter.vectorOffset else { continue }
            let part = range.clamped(to: parameter.range)
            if part.isEmpty { continue }
            (vectors + place + (part.lowerBound - parameter.offset)).update(
                from: source + (part.lowerBound - range.lowerBound), count: part.count)
        }
    }

    /// The memory that kernels read, and the bytes in it that correspond to each of the given flat ranges.
    /// Ranks that each set one range complete the store by exchanging these bytes.
    package func kernelMemory(dividedInto ranges: [Range<Int>])
        -> [(memory: UnsafeMutableRawBufferPointer, parts: [Range<Int>], elementSize: Int)]
    {
        guard let halves, let vectors else {
            return [
                (
                    UnsafeMutableRawBufferPointer(start: values, count: 4 * count),
                    ranges.map { 4 * $0.lowerBound..<4 * $0.upperBound }, 4
                )
            ]
        }
        let places = ranges.map { 4 * vectorPlace($0.lowerBound)..<4 * vectorPlace($0.upperBound) }
        return [
            (
                UnsafeMutableRawBufferPointer(start: halves, count: 2 * count),
                ranges.map { 2 * $0.lowerBound..<2 * $0.upperBound }, 2
            ),
            (UnsafeMutableRawBufferPointer(start: vectors, count: 4 * vectorCount), places, 4),
        ]
    }

    /// The offset among the vectors that corresponds to a flat offset: that of the next vector element.
    private func vectorPlace(_ offset: Int) -> Int {
        for parameter in parametersByOffset
        where parameter.vectorOffset != nil && offset < parameter.range.upperBound {
            return parameter.vectorOffset! + max(0, offset - parameter.offset)
        }
        return vectorCount
    }

    fileprivate func floats(of parameter: Parameter) -> UnsafeMutablePointer<Float> {
        guard let vectors else { return values + parameter.offset }
        guard let place = parameter.vectorOffset else {
            preconditionFailure("\(parameter.name) is kept in bf16")
        }
        return vectors + place
    }

    fileprivate func matrixPointer(_ offset: Int) -> UnsafeRawPointer {
        halves.map { UnsafeRawPointer($0 + offset) } ?? UnsafeRawPointer(values + offset)
    }
}

extension Int {
    /// The bits in reverse order, as a sort key.
    fileprivate var bitReversed: UInt {
        var (bits, result) = (UInt(self), UInt(0))
        for _ in 0..<UInt.bitWidth {
            result = result << 1 | bits & 1
            bits >>= 1
        }
        return result
    }
}

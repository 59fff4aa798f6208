import FileFormats
import TensorCore

/// The feature network of FID (Heusel et al., 2017): Inception-v3 of the TensorFlow release of 2015, with the
/// structure and parameter names of pytorch-fid's `fid_inception_v3`.
///
/// It ends at the pooled features, [B, 2048]; the classifier is not used.
package final class InceptionV3 {
    package let store = ParameterStore()
    /// Length of a feature vector: 2048.
    package let featureCount: Int
    private let stem: [FoldedConvolution]
    private let blocks: [any InceptionBlock]

    /// Side of the network's input in pixels.
    static let imageSide = 299

    /// - Parameter narrowing: divides all channel counts; for tests.
    package init(narrowing: Int = 1) {
        precondition(16 % narrowing == 0, "widths are multiples of 16, not of \(narrowing)")
        let narrowed = { (width: Int) in width / narrowing }
        let root = ParameterScope(store)
        let three = (height: 3, width: 3)
        stem = [
            FoldedConvolution(
                root, "Conv2d_1a_3x3", 3, narrowed(32), kernel: three, stride: 2, isPadded: false),
            FoldedConvolution(
                root, "Conv2d_2a_3x3", narrowed(32), narrowed(32), kernel: three, isPadded: false),
            FoldedConvolution(root, "Conv2d_2b_3x3", narrowed(32), narrowed(64), kernel: three),
            FoldedConvolution(root, "Conv2d_3b_1x1", narrowed(64), narrowed(80)),
            FoldedConvolution(
                root, "Conv2d_4a_3x3", narrowed(80), narrowed(192), kernel: three, isPadded: false),
        ]
        blocks = [
            InceptionA(root["Mixed_5b"], narrowed(192), pool: 32, narrowed),
            InceptionA(root["Mixed_5c"], narrowed(256), pool: 64, narrowed),
            InceptionA(root["Mixed_5d"], narrowed(288), pool: 64, narrowed),
            InceptionB(root["Mixed_6a"], narrowed(288), narrowed),
            InceptionC(root["Mixed_6b"], narrowed(768), seven: 128, narrowed),
            InceptionC(root["Mixed_6c"], narrowed(768), seven: 160, narrowed),
            InceptionC(root["Mixed_6d"], narrowed(768), seven: 160, narrowed),
            InceptionC(root["Mixed_6e"], narrowed(768), seven: 192, narrowed),
            InceptionD(root["Mixed_7a"], narrowed(768), narrowed),
            InceptionE(root["Mixed_7b"], narrowed(1280), poolsMaximum: false, narrowed),
            InceptionE(root["Mixed_7c"], narrowed(2048), poolsMaximum: true, narrowed),
        ]
        featureCount = narrowed(2048)
    }

    /// Records the forward pass.
    ///
    /// - Parameter images: [B, H, W, 3] in [0, 1], fp32, of any size
    /// - Returns: features [B, 2048]
    package func callAsFunction(_ tape: Tape, _ images: Tensor) -> Tensor {
        precondition(images.shape.count == 4 && images.shape[3] == 3, "images \(images.shape)")
        let side = Self.imageSide
        var x = tape.resizeBilinear(images, height: side, width: side, scale: 2, shift: -1)
        x = stem[1](tape, stem[0](tape, x))
        // ReLU commutes with max pooling; after pooling there are a quarter of the pixels.
        x = tape.relu(tape.maxPool3(stem[2].linear(tape, x), stride: 2))
        x = tape.relu(tape.maxPool3(stem[4].linear(tape, stem[3](tape, x)), stride: 2))
        return tape.imageMean(blocks.reduce(x) { $1(tape, $0) })
    }

    private var convolutions: [FoldedConvolution] { stem + blocks.flatMap(\.convolutions) }

    /// Loads a state dict of `fid_inception_v3`, including batch normalization, from a safetensors file.
    ///
    /// - Throws: `SafetensorsError`, or `ModelFolderError` that lists all mismatched tensors.
    package func load(_ path: String) throws {
        let file = try SafetensorsFile(path: path)
        let sources = convolutions.flatMap(\.sources)
        let expected = Set(sources.map(\.name))
        var error = ModelFolderError(path)
        error.unexpected = file.names.filter { !expected.contains($0) && !Self.isUnused($0) }
        for source in sources {
            guard file.contains(source.name) else {
                error.missing.append(source.name)
                continue
            }
            let info = try file.info(of: source.name)
            if info.shape != source.shape || !info.dtype.isFloatingPoint {
                error.misshapen.append(
                    "\(source.name) is \(info.dtype.rawValue) \(info.shape), expected \(source.shape)")
            }
        }
        guard error.missing.isEmpty, error.unexpected.isEmpty, error.misshapen.isEmpty else {
            error.detail =
                "is not the state dict of pytorch-fid's Inception network (docs/evaluation.md describes how to convert it)"
            throw error
        }
        for convolution in convolutions { try convolution.load(file) }
        store.valuesChanged()
    }

    /// The classifier, and batch counters of training.
    private static func isUnused(_ name: String) -> Bool {
        name == "fc.weight" || name == "fc.bias" || name.hasSuffix(".num_batches_tracked")
    }
}

/// Computes features of images. Passes are recorded once per batch size and image size, always in fp32, as
/// for published FID values.
package final class InceptionFeatures {
    package let network: InceptionV3
    private let backend: Backend
    private let arena: Arena
    private var passes = RecentCache<[Int], Pass>(capacity: 2)

    private struct Pass {
        let tape: Tape
        let context: RunContext
        let images: Tensor
        let features: Tensor
    }

    /// Images per pass. Larger batches do not improve utilization, and their activations exceed the
    /// processor's caches.
    private static let batch = 16

    package init(_ network: InceptionV3, backend: Backend = .fastest, arena: Arena = Arena()) {
        (self.network, self.backend, self.arena) = (network, backend, arena)
    }

    /// Features of images.
    ///
    /// - Parameter images: [count, height, width, 3] in [0, 1]
    /// - Returns: [count, 2048]
    package func callAsFunction(_ images: [Float], count: Int, height: Int, width: Int) -> [Float] {
        let size = height * width * 3
        precondition(images.count == count * size, "\(images.count) values for \(count) images")
        var features: [Float] = []
        for start in stride(from: 0, to: count, by: Self.batch) {
            let batch = min(Self.batch, count - start)
            let pass = passes.value(for: [batch, height, width]) { record(batch, height, width) }
            images.withUnsafeBufferPointer {
                pass.images.write(UnsafeBufferPointer(rebasing: $0[start * size..<(start + batch) * size]))
            }
            pass.tape.run(pass.context)
            features += pass.features.readFloats()
        }
        return features
    }

    /// The work of the passes since the last call, by kind.
    package func takeProfile() -> [WorkProfile] { passes.values.map(\.tape).takeProfile() }

    private func record(_ batch: Int, _ height: Int, _ width: Int) -> Pass {
        let tape = Tape(dtype: .float32, backend: backend, recordsGradients: false, arena: arena)
        let images = tape.input([batch, height, width, 3])
        let features = network(tape, images)
        tape.keep(features)
        tape.plan()
        return Pass(
            tape: tape, context: RunContext(batch: batch), images: images, features: features)
    }
}

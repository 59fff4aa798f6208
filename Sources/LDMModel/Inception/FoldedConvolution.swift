import FileFormats
import TensorCore

/// A convolution with batch normalization folded into its weights, for inference (torchvision's BasicConv2d):
/// y = conv(x; w·γ/√(σ² + ε)) + β − μ·γ/√(σ² + ε), followed by ReLU.
struct FoldedConvolution {
    let name: String
    let weight: Parameter
    let bias: Parameter
    private let stride: Int
    private let padding: Padding

    /// ε of batch normalization.
    private static let eps: Float = 0.001

    /// - Parameters:
    ///   - kernel: height and width
    ///   - isPadded: zero padding that preserves the image size at stride 1
    init(
        _ scope: ParameterScope, _ name: String, _ inChannels: Int, _ outChannels: Int,
        kernel: (height: Int, width: Int) = (1, 1), stride: Int = 1, isPadded: Bool = true
    ) {
        let own = scope[name]
        let fanIn = inChannels * kernel.height * kernel.width
        weight = own.declare(
            "weight", [outChannels, inChannels, kernel.height, kernel.width], .uniform(fanIn: fanIn))
        bias = own.declare("bias", [outChannels], .zeros)
        self.name = String(weight.name.dropLast(".weight".count))
        self.stride = stride
        let (h, w) = isPadded ? (kernel.height / 2, kernel.width / 2) : (0, 0)
        padding = Padding(top: h, left: w, bottom: h, right: w)
    }

    /// - Parameter x: [B, H, W, in]
    /// - Returns: [B, H', W', out], before the ReLU
    func linear(_ tape: Tape, _ x: Tensor) -> Tensor {
        tape.convolution(x, weight, bias, stride: stride, padding: padding)
    }

    func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor { tape.relu(linear(tape, x)) }

    /// Names and shapes of the state-dict tensors that this layer is computed from.
    var sources: [(name: String, shape: [Int])] {
        [("conv.weight", weight.shape)].map { ("\(name).\($0.0)", $0.1) }
            + ["weight", "bias", "running_mean", "running_var"].map { ("\(name).bn.\($0)", bias.shape) }
    }

    /// Loads the values from a state dict that contains all `sources`.
    func load(_ file: SafetensorsFile) throws {
        let kernels = try file.floats(of: "\(name).conv.weight")
        let gamma = try file.floats(of: "\(name).bn.weight")
        let beta = try file.floats(of: "\(name).bn.bias")
        let mean = try file.floats(of: "\(name).bn.running_mean")
        let variance = try file.floats(of: "\(name).bn.running_var")
        let size = kernels.count / gamma.count
        for o in gamma.indices {
            let factor = gamma[o] / (variance[o] + Self.eps).squareRoot()
            for i in o * size..<(o + 1) * size { weight.values[i] = kernels[i] * factor }
            bias.values[o] = beta[o] - mean[o] * factor
        }
    }
}

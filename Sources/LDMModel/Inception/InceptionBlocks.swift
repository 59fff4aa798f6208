import TensorCore

// The blocks of Inception-v3 (Szegedy et al., "Rethinking the Inception Architecture", 2016) with
// torchvision's names and the average pooling of FID's network, which excludes padding.
//
// Average pooling commutes with a 1×1 convolution. The pooling follows the convolution here, because there
// are fewer channels to pool. ReLU is applied together with the concatenation.

/// A part of the network: its forward pass, and its convolutions in forward order.
protocol InceptionBlock {
    var convolutions: [FoldedConvolution] { get }
    /// - Parameter x: [B, H, W, in]
    func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor
}

/// Kernel sizes.
private let threeByThree = (height: 3, width: 3)
private let fiveByFive = (height: 5, width: 5)

/// Mixed_5b, 5c, 5d: 35×35.
struct InceptionA: InceptionBlock {
    private let one, five1, five2, double1, double2, double3, pool: FoldedConvolution

    init(_ scope: ParameterScope, _ input: Int, pool width: Int, _ narrowed: (Int) -> Int) {
        one = FoldedConvolution(scope, "branch1x1", input, narrowed(64))
        five1 = FoldedConvolution(scope, "branch5x5_1", input, narrowed(48))
        five2 = FoldedConvolution(scope, "branch5x5_2", narrowed(48), narrowed(64), kernel: fiveByFive)
        double1 = FoldedConvolution(scope, "branch3x3dbl_1", input, narrowed(64))
        double2 = FoldedConvolution(scope, "branch3x3dbl_2", narrowed(64), narrowed(96), kernel: threeByThree)
        double3 = FoldedConvolution(scope, "branch3x3dbl_3", narrowed(96), narrowed(96), kernel: threeByThree)
        pool = FoldedConvolution(scope, "branch_pool", input, narrowed(width))
    }

    var convolutions: [FoldedConvolution] { [one, five1, five2, double1, double2, double3, pool] }

    func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor {
        tape.concatenateReLU([
            one.linear(tape, x),
            five2.linear(tape, five1(tape, x)),
            double3.linear(tape, double2(tape, double1(tape, x))),
            tape.meanPool3(pool.linear(tape, x)),
        ])
    }
}

/// Mixed_6a: 35×35 to 17×17.
struct InceptionB: InceptionBlock {
    private let three, double1, double2, double3: FoldedConvolution

    init(_ scope: ParameterScope, _ input: Int, _ narrowed: (Int) -> Int) {
        three = FoldedConvolution(
            scope, "branch3x3", input, narrowed(384), kernel: threeByThree, stride: 2, isPadded: false)
        double1 = FoldedConvolution(scope, "branch3x3dbl_1", input, narrowed(64))
        double2 = FoldedConvolution(scope, "branch3x3dbl_2", narrowed(64), narrowed(96), kernel: threeByThree)
        double3 = FoldedConvolution(
            scope, "branch3x3dbl_3", narrowed(96), narrowed(96), kernel: threeByThree, stride: 2,
            isPadded: false)
    }

    var convolutions: [FoldedConvolution] { [three, double1, double2, double3] }

    func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor {
        tape.concatenateReLU([
            three.linear(tape, x),
            double3.linear(tape, double2(tape, double1(tape, x))),
            tape.maxPool3(x, stride: 2),
        ])
    }
}

/// Mixed_6b to 6e: 17×17, with 7×7 convolutions factorized into 1×7 and 7×1.
struct InceptionC: InceptionBlock {
    private let one, pool: FoldedConvolution
    private let seven, double: [FoldedConvolution]

    init(_ scope: ParameterScope, _ input: Int, seven width: Int, _ narrowed: (Int) -> Int) {
        let (inner, output) = (narrowed(width), narrowed(192))
        let (across, down) = ((height: 1, width: 7), (height: 7, width: 1))
        one = FoldedConvolution(scope, "branch1x1", input, output)
        seven = [
            FoldedConvolution(scope, "branch7x7_1", input, inner),
            FoldedConvolution(scope, "branch7x7_2", inner, inner, kernel: across),
            FoldedConvolution(scope, "branch7x7_3", inner, output, kernel: down),
        ]
        double = [
            FoldedConvolution(scope, "branch7x7dbl_1", input, inner),
            FoldedConvolution(scope, "branch7x7dbl_2", inner, inner, kernel: down),
            FoldedConvolution(scope, "branch7x7dbl_3", inner, inner, kernel: across),
            FoldedConvolution(scope, "branch7x7dbl_4", inner, inner, kernel: down),
            FoldedConvolution(scope, "branch7x7dbl_5", inner, output, kernel: across),
        ]
        pool = FoldedConvolution(scope, "branch_pool", input, output)
    }

    var convolutions: [FoldedConvolution] { [one] + seven + double + [pool] }

    func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor {
        tape.concatenateReLU([
            one.linear(tape, x),
            chain(tape, x, seven),
            chain(tape, x, double),
            tape.meanPool3(pool.linear(tape, x)),
        ])
    }
}

/// Mixed_7a: 17×17 to 8×8.
struct InceptionD: InceptionBlock {
    private let three, seven: [FoldedConvolution]

    init(_ scope: ParameterScope, _ input: Int, _ narrowed: (Int) -> Int) {
        let width = narrowed(192)
        three = [
            FoldedConvolution(scope, "branch3x3_1", input, width),
            FoldedConvolution(
                scope, "branch3x3_2", width, narrowed(320), kernel: threeByThree, stride: 2, isPadded: false),
        ]
        seven = [
            FoldedConvolution(scope, "branch7x7x3_1", input, width),
            FoldedConvolution(scope, "branch7x7x3_2", width, width, kernel: (height: 1, width: 7)),
            FoldedConvolution(scope, "branch7x7x3_3", width, width, kernel: (height: 7, width: 1)),
            FoldedConvolution(
                scope, "branch7x7x3_4", width, width, kernel: threeByThree, stride: 2, isPadded: false),
        ]
    }

    var convolutions: [FoldedConvolution] { three + seven }

    func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor {
        tape.concatenateReLU([chain(tape, x, three), chain(tape, x, seven), tape.maxPool3(x, stride: 2)])
    }
}

/// Mixed_7b and 7c: 8×8. The last block uses max pooling, a mistake in the network that defines FID.
struct InceptionE: InceptionBlock {
    private let one, three1, three2a, three2b, double1, double2, double3a, double3b, pool: FoldedConvolution
    private let poolsMaximum: Bool

    init(_ scope: ParameterScope, _ input: Int, poolsMaximum: Bool, _ narrowed: (Int) -> Int) {
        let (across, down) = ((height: 1, width: 3), (height: 3, width: 1))
        let width = narrowed(384)
        one = FoldedConvolution(scope, "branch1x1", input, narrowed(320))
        three1 = FoldedConvolution(scope, "branch3x3_1", input, width)
        three2a = FoldedConvolution(scope, "branch3x3_2a", width, width, kernel: across)
        three2b = FoldedConvolution(scope, "branch3x3_2b", width, width, kernel: down)
        double1 = FoldedConvolution(scope, "branch3x3dbl_1", input, narrowed(448))
        double2 = FoldedConvolution(scope, "branch3x3dbl_2", narrowed(448), width, kernel: threeByThree)
        double3a = FoldedConvolution(scope, "branch3x3dbl_3a", width, width, kernel: across)
        double3b = FoldedConvolution(scope, "branch3x3dbl_3b", width, width, kernel: down)
        pool = FoldedConvolution(scope, "branch_pool", input, narrowed(192))
        self.poolsMaximum = poolsMaximum
    }

    var convolutions: [FoldedConvolution] {
        [one, three1, three2a, three2b, double1, double2, double3a, double3b, pool]
    }

    func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor {
        let three = three1(tape, x)
        let double = double2(tape, double1(tape, x))
        return tape.concatenateReLU([
            one.linear(tape, x),
            three2a.linear(tape, three), three2b.linear(tape, three),
            double3a.linear(tape, double), double3b.linear(tape, double),
            poolsMaximum
                ? pool.linear(tape, tape.maxPool3(x, stride: 1, padding: 1))
                : tape.meanPool3(pool.linear(tape, x)),
        ])
    }
}

/// Applies convolutions in sequence, the last without its ReLU.
private func chain(_ tape: Tape, _ x: Tensor, _ layers: [FoldedConvolution]) -> Tensor {
    layers[layers.count - 1].linear(tape, layers.dropLast().reduce(x) { $1(tape, $0) })
}

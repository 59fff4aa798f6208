import CKernels

// Operations for networks that are only evaluated: fp32, on tapes without gradients. B samples of H × W
// pixels, C channels.

extension Tape {
    /// Maximum over 3×3 windows.
    ///
    /// - Parameters:
    ///   - x: [B, H, W, C]
    ///   - padding: border in pixels, 0 or 1, that never contributes to the maximum
    /// - Returns: [B, H', W', C], H' = (H + 2·padding − 3)/stride + 1
    package func maxPool3(_ x: Tensor, stride: Int, padding: Int = 0) -> Tensor {
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        precondition(min(H, W) + 2 * padding >= 3 && (0...1).contains(padding), "max pooling of \(x.shape)")
        let y = evaluated(
            x, [B, (H + 2 * padding - 3) / stride + 1, (W + 2 * padding - 3) / stride + 1, C])
        record("max pool", .elementwise, reads: [x], writes: [y]) { _ in
            ck_max_pool3(B, H, W, C, stride, padding, x.floats.baseAddress, y.floats.baseAddress)
        }
        return y
    }

    /// Mean over 3×3 windows at stride 1, counting only pixels inside the image.
    ///
    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, H, W, C]
    package func meanPool3(_ x: Tensor) -> Tensor {
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        let y = evaluated(x, x.shape)
        record("mean pool", .elementwise, reads: [x], writes: [y]) { _ in
            ck_mean_pool3(B, H, W, C, x.floats.baseAddress, y.floats.baseAddress)
        }
        return y
    }

    /// Mean over an image's pixels.
    ///
    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, C]
    package func imageMean(_ x: Tensor) -> Tensor {
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        let y = evaluated(x, [B, C])
        record("image mean", .elementwise, reads: [x], writes: [y]) { _ in
            ck_image_mean(B, H, W, C, x.floats.baseAddress, y.floats.baseAddress)
        }
        return y
    }

    /// y = max(x, 0)
    package func relu(_ x: Tensor) -> Tensor {
        let y = evaluated(x, x.shape)
        let n = x.count
        record("relu", .elementwise, reads: [x], writes: [y], inPlace: (y, x)) { _ in
            ck_relu(n, x.floats.baseAddress, y.floats.baseAddress)
        }
        return y
    }

    /// max(x, 0) of several tensors, concatenated along channels, with one pass over each tensor.
    ///
    /// - Parameter parts: [..., Cₖ], with identical shapes except for the last dimension
    /// - Returns: [..., ΣCₖ]
    package func concatenateReLU(_ parts: [Tensor]) -> Tensor {
        let places = parts.map { $0.shape.dropLast() }
        precondition(Set(places).count == 1, "concatenation of \(parts.map(\.shape))")
        let total = parts.reduce(0) { $0 + $1.shape.last! }
        let rows = places[0].reduce(1, *)
        let y = evaluated(parts[0], Array(places[0]) + [total])
        record("concatenate", .elementwise, reads: parts, writes: [y]) { _ in
            var start = 0
            for part in parts {
                let width = part.shape.last!
                ck_place_columns_relu(
                    rows, total, start, width, part.floats.baseAddress, y.floats.baseAddress)
                start += width
            }
        }
        return y
    }

    /// Bilinear resizing as in torch's `interpolate` with `align_corners=False` (no antialiasing), then
    /// scale·x + shift.
    ///
    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, height, width, C]
    package func resizeBilinear(
        _ x: Tensor, height: Int, width: Int, scale: Float = 1, shift: Float = 0
    ) -> Tensor {
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        let y = evaluated(x, [B, height, width, C])
        record("resize", .elementwise, reads: [x], writes: [y]) { _ in
            ck_resize_bilinear(
                B, H, W, C, height, width, scale, shift, x.floats.baseAddress, y.floats.baseAddress)
        }
        return y
    }

    /// A result without a gradient.
    private func evaluated(_ x: Tensor, _ shape: [Int]) -> Tensor {
        precondition(!recordsGradients && x.dtype == .float32, "has no gradient, and is for fp32")
        return make(shape, dtype: .float32, needsGradient: false)
    }
}

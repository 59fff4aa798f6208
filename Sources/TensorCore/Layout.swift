import CKernels

/// Converts between NCHW, the layout of tensors in files (as in PyTorch), and NHWC, the layout in memory.
package enum Layout {
    /// [B, C, H, W] from [B, H, W, C].
    package static func nchw(_ x: [Float], batch: Int, height: Int, width: Int, channels: Int) -> [Float] {
        precondition(x.count == batch * height * width * channels)
        return [Float](unsafeUninitializedCapacity: x.count) { buffer, count in
            ck_nhwc_to_nchw(CK_F32, batch, channels, height, width, x, buffer.baseAddress)
            count = x.count
        }
    }

    /// [B, H, W, C] from [B, C, H, W].
    package static func nhwc(_ x: [Float], batch: Int, height: Int, width: Int, channels: Int) -> [Float] {
        precondition(x.count == batch * height * width * channels)
        return [Float](unsafeUninitializedCapacity: x.count) { buffer, count in
            ck_nchw_to_nhwc(CK_F32, batch, channels, height, width, x, buffer.baseAddress)
            count = x.count
        }
    }
}

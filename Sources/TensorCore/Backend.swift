import CKernels

/// What convolutions are computed with.
package enum Backend: String, Sendable, CaseIterable {
    /// im2col and matrix products: the portable reference.
    case openBLAS
    /// Direct convolution.
    case oneDNN
    /// Winograd's wherever it is possible.
    case winograd
    /// For each shape what is fastest on this processor.
    case fastest

    var kernel: ck_backend {
        switch self {
        case .openBLAS: CK_OPENBLAS
        case .oneDNN: CK_ONEDNN
        case .winograd: CK_WINOGRAD
        case .fastest: CK_FASTEST
        }
    }

    /// Whether this program and this processor have it.
    package var isAvailable: Bool { ck_backend_available(kernel) != 0 }

    /// Version and instruction set, for people to read.
    package var summary: String { String(cString: ck_backend_description(kernel)) }
}

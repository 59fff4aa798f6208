import CKernels

/// The implementation of convolutions.
package enum Backend: String, Sendable, CaseIterable {
    /// im2col and matrix products: the portable reference.
    case openBLAS
    /// Direct convolution.
    case oneDNN
    /// Winograd convolution where it is possible.
    case winograd
    /// The fastest implementation for each shape on this processor.
    case fastest

    var kernel: ck_backend {
        switch self {
        case .openBLAS: CK_OPENBLAS
        case .oneDNN: CK_ONEDNN
        case .winograd: CK_WINOGRAD
        case .fastest: CK_FASTEST
        }
    }

    /// Whether this build and this processor support the backend.
    package var isAvailable: Bool { ck_backend_available(kernel) != 0 }

    /// Version and instruction set, for display.
    package var summary: String { String(cString: ck_backend_description(kernel)) }
}

import CKernels

/// The compute resources of this process.
package enum Processor {
    /// Number of threads of every kernel of this process: oneDNN, OpenBLAS products and our own loops share
    /// one pool.
    package static var threads: Int { Int(ck_threads()) }

    /// Sets the number of threads; call it before the first kernel runs.
    package static func setThreads(_ count: Int) { ck_set_threads(Int32(count)) }

    /// e.g. "AVX-512 (BF16, VNNI)".
    package static var features: String { String(cString: ck_processor_features()) }

    /// The kernels selected by OpenBLAS, e.g. "Cooperlake".
    package static var openBLASKernels: String { String(cString: ck_gemm_kernels()) }

    /// Whether the processor multiplies bf16 natively (AVX512_BF16 or AMX); used for `precision: auto`.
    package static var hasNativeBFloat16: Bool { ck_has_native_bf16() != 0 }
}

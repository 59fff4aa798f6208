import CKernels

/// What this process computes with.
public enum Processor {
    /// Threads of every kernel of this process: oneDNN's, OpenBLAS's products and our own loops share one pool.
    public static var threads: Int { Int(ck_threads()) }

    /// Sets the number of threads; call it before the first kernel runs.
    public static func setThreads(_ count: Int) { ck_set_threads(Int32(count)) }

    /// e.g. "AVX-512 (BF16, VNNI)".
    public static var features: String { String(cString: ck_processor_features()) }

    /// The kernels that OpenBLAS chose, e.g. "Cooperlake".
    public static var openBLASKernels: String { String(cString: ck_gemm_kernels()) }

    /// Whether the processor multiplies bf16 natively (AVX512_BF16 or AMX); `precision: auto` asks this.
    public static var hasNativeBFloat16: Bool { ck_has_native_bf16() != 0 }
}

import CKernels
import Support
import Synchronization

/// The compute resources of this process.
package enum Processor {
    /// Number of threads of every kernel of this process: oneDNN, OpenBLAS products and our own loops share
    /// one pool.
    package static var threads: Int { Int(ck_threads()) }

    /// Sets the number of threads; call it before the first kernel runs.
    package static func setThreads(_ count: Int) { ck_set_threads(Int32(count)) }

    /// e.g. "AVX-512 (BF16, VNNI)".
    package static var features: String {
        var text = [CChar](repeating: 0, count: 64)
        ck_processor_features(&text, text.count)
        return String(terminated: text)
    }

    /// The kernels selected by OpenBLAS, e.g. "Cooperlake".
    package static var openBLASKernels: String { String(cString: ck_gemm_kernels()) }

    /// Whether the processor multiplies bf16 natively (AVX512_BF16 or AMX); used for `precision: auto`.
    package static var hasNativeBFloat16: Bool { ck_has_native_bf16() != 0 }
}

extension Processor {
    /// Runs tasks 0..<count on the kernels' threads; each task runs on a single thread. Tasks may run
    /// concurrently and must not write to the same memory.
    package static func concurrently(_ count: Int, _ body: (Int) -> Void) {
        withoutActuallyEscaping(body) { body in
            var tasks = Tasks(count: count, workers: max(1, min(count, threads)), body: body)
            withUnsafeMutablePointer(to: &tasks) { tasks in
                ck_parallel(
                    tasks.pointee.workers, 1,
                    { context, begin, end in
                        let tasks = context!.assumingMemoryBound(to: Tasks.self).pointee
                        for worker in begin..<end {
                            for index in Swift.stride(from: worker, to: tasks.count, by: tasks.workers) {
                                tasks.body(index)
                            }
                        }
                    }, UnsafeMutableRawPointer(tasks))
            }
        }
    }

    /// Like `concurrently`, for tasks that may throw: throws the first error, after which no more tasks
    /// start.
    package static func concurrently(_ count: Int, _ body: (Int) throws -> Void) throws {
        let failure = Mutex<(any Error)?>(nil)
        concurrently(count) { index in
            guard failure.withLock({ $0 == nil }) else { return }
            do {
                try body(index)
            } catch {
                failure.withLock { if $0 == nil { $0 = error } }
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }

    private struct Tasks {
        let count: Int
        let workers: Int
        let body: (Int) -> Void
    }
}

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
    package var summary: String {
        var text = [CChar](repeating: 0, count: 160)
        ck_backend_description(kernel, &text, text.count)
        return String(terminated: text)
    }
}

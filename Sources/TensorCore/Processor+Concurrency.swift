import CKernels
import Synchronization

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

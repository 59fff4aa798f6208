import Foundation

/// Starts a detached thread with all signals blocked.
///
/// - Parameter name: the thread name; Linux shows its first 15 bytes.
package func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let thread = Thread {
        // Foundation's thread name is not visible to top and debuggers.
        if let file = fopen("/proc/thread-self/comm", "w") {
            fputs(name, file)
            fclose(file)
        }
        body()
    }
    // Signals are handled by the thread that installed the handlers.
    var all = sigset_t()
    var previous = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_BLOCK, &all, &previous)
    thread.start()
    pthread_sigmask(SIG_SETMASK, &previous, nil)
}

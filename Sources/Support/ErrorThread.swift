import Foundation

/// A detached thread that takes no signals.
///
/// - Parameter name: 15 bytes of it are shown.
package func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let thread = Thread {
        // For top and debuggers, which do not see Foundation's name.
        if let file = fopen("/proc/thread-self/comm", "w") {
            fputs(name, file)
            fclose(file)
        }
        body()
    }
    // Signals are for the thread that has set up their handlers.
    var all = sigset_t()
    var previous = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_BLOCK, &all, &previous)
    thread.start()
    pthread_sigmask(SIG_SETMASK, &previous, nil)
}

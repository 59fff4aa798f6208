import FileFormats

/// What the ranks share out among them.
package enum Sharding: String, ConfigChoice {
    /// Every rank holds everything.
    case none
    /// Each rank owns a slice of optimizer state, master weights and averages (Rajbhandari et al., "ZeRO: Memory
    /// Optimizations Toward Training Trillion Parameter Models", 2020, stage 1).
    case optimizer
}

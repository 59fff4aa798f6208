import FileFormats

/// The state that is sharded over the ranks.
package enum Sharding: String, ConfigChoice {
    /// No sharding: each rank holds all state.
    case none
    /// Each rank owns a shard of optimizer state, master weights and averages (Rajbhandari et al., "ZeRO:
    /// Memory Optimizations Toward Training Trillion Parameter Models", 2020, stage 1).
    case optimizer
}

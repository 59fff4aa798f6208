import TensorCore

/// The order in which a run visits its samples: for each epoch a permutation of 0..<count, keyed by (seed,
/// epoch).
///
/// Epochs follow one another without a gap, so the data position of a run is one number, position = step ·
/// batch + i, and a batch may span two epochs. No array is shuffled or stored. The permutation is a Feistel
/// network over the smallest power of two that is at least `count`; results outside 0..<count are permuted
/// again until they are inside (cycle walking), which preserves bijectivity.
///
/// Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002.
package struct DataOrder: Sendable, Equatable {
    /// Number of samples in an epoch.
    package let count: Int
    package let seed: UInt64

    // Widths of the two halves of a number in the network's domain, in bits.
    private let leftBits: UInt64
    private let rightBits: UInt64

    private static let rounds = 10
    /// Halves of one or two bits barely mix; small sets are therefore permuted in a domain of at least this
    /// many bits.
    private static let minimumBits = 6

    package init(count: Int, seed: UInt64) {
        precondition(count > 0, "an order needs at least one sample")
        self.count = count
        self.seed = seed
        let bits = max(Self.minimumBits, UInt64.bitWidth - UInt64(count - 1).leadingZeroBitCount)
        leftBits = UInt64(bits / 2)
        rightBits = UInt64(bits - bits / 2)
    }

    /// The sample at a position, counted from the run's first sample.
    ///
    /// - Complexity: O(1); fewer than two network evaluations on average if count is at least 33.
    package func index(at position: Int) -> Int {
        precondition(position >= 0, "positions start at 0")
        if count == 1 { return 0 }
        var value = UInt64(position % count)
        let epoch = UInt64(position / count)
        repeat { value = permuted(value, epoch: epoch) } while value >= UInt64(count)
        return Int(value)
    }

    /// The epoch of a position, from 0.
    package func epoch(at position: Int) -> Int { position / count }

    private func permuted(_ value: UInt64, epoch: UInt64) -> UInt64 {
        // The round keys come from one Philox stream per epoch.
        var keys = CounterRandom(seed: seed, purpose: .dataOrder, step: epoch)
        var left = value >> rightBits
        var right = value & (1 << rightBits - 1)
        for round in 0..<Self.rounds {
            let key = UInt64(keys.next()) << 32 | UInt64(keys.next())
            if round % 2 == 0 {
                left ^= Self.mix(right ^ key) >> (64 - leftBits)
            } else {
                right ^= Self.mix(left ^ key) >> (64 - rightBits)
            }
        }
        return left << rightBits | right
    }

    /// The finalizer of SplitMix64: each input bit affects each output bit.
    private static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}

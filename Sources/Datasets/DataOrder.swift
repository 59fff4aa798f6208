import TensorCore

/// The order in which a run visits its samples: for every epoch a permutation of 0..<count, keyed by (seed,
/// epoch).
///
/// Epochs follow each other without a gap, so the cursor of a run is one number: position = step · batch + i,
/// and a batch may span two epochs. No array is shuffled or kept. The permutation is a Feistel network over
/// the smallest power of two that holds `count`; a result outside 0..<count is put through the network again
/// until it falls inside (cycle walking), which keeps it a bijection.
///
/// Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002.
package struct DataOrder: Sendable, Equatable {
    /// Number of samples in an epoch.
    package let count: Int
    package let seed: UInt64

    // Widths of the two halves of a number in the network's domain.
    private let leftBits: UInt64
    private let rightBits: UInt64

    private static let rounds = 10
    /// Halves of a bit or two hardly mix, so small sets are permuted inside a domain of this many bits.
    private static let minimumBits = 6

    package init(count: Int, seed: UInt64) {
        precondition(count > 0, "an order needs at least one sample")
        self.count = count
        self.seed = seed
        let bits = max(Self.minimumBits, UInt64.bitWidth - UInt64(count - 1).leadingZeroBitCount)
        leftBits = UInt64(bits / 2)
        rightBits = UInt64(bits - bits / 2)
    }

    /// The sample at a position of the run, counted from its first sample on.
    ///
    /// - Complexity: O(1), less than two walks on average where count is 33 or more.
    package func index(at position: Int) -> Int {
        precondition(position >= 0, "positions start at 0")
        if count == 1 { return 0 }
        var value = UInt64(position % count)
        let epoch = UInt64(position / count)
        repeat { value = permuted(value, epoch: epoch) } while value >= UInt64(count)
        return Int(value)
    }

    /// The epoch that a position lies in, from 0.
    package func epoch(at position: Int) -> Int { position / count }

    private func permuted(_ value: UInt64, epoch: UInt64) -> UInt64 {
        // One Philox stream an epoch gives the round keys.
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

    /// The finalizer of SplitMix64: every input bit reaches every output bit.
    private static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}

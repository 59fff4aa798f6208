import Foundation

/// Counter-based random numbers: Philox4x32-10.
///
/// Every number is a pure function of (seed, purpose, step, sample, position). The numbers therefore do not
/// depend on the rank, the number of ranks or earlier draws, and a checkpoint stores no generator state.
///
/// Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
package struct CounterRandom {
    /// The purpose of a stream; streams with different purposes never overlap.
    package enum Purpose: UInt32, Sendable {
        case initialization = 1
        case timestep = 2
        case noise = 3
        case flip = 4
        case dropout = 5
        case posterior = 6
        case dataOrder = 7
        case sampling = 8
        case samplingNoise = 9
        case syntheticImage = 10
        case test = 11
        case evaluation = 12
        case labelDropout = 13
    }

    private let key: (UInt32, UInt32)
    private let stream: (UInt32, UInt32, UInt32)
    private var block: UInt32 = 0
    private var buffer: (UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0)
    private var used = 4
    private var spareNormal: Float?

    /// - Parameters:
    ///   - seed: the run's seed.
    ///   - purpose: what the numbers are used for.
    ///   - step: training step, epoch or denoising step (48 bits are used).
    ///   - sample: global sample index (48 bits are used).
    package init(seed: UInt64, purpose: Purpose, step: UInt64 = 0, sample: UInt64 = 0) {
        // The purpose is part of the key, so streams with different purposes may use the same counters.
        let mixed = seed &+ UInt64(purpose.rawValue) &* 0x9E37_79B9_7F4A_7C15
        key = (UInt32(truncatingIfNeeded: mixed), UInt32(truncatingIfNeeded: mixed >> 32))
        stream = (
            UInt32(truncatingIfNeeded: sample),
            UInt32(truncatingIfNeeded: step),
            UInt32(truncatingIfNeeded: (sample >> 32) & 0xFFFF | ((step >> 32) & 0xFFFF) << 16)
        )
    }

    /// The next 32 random bits.
    package mutating func next() -> UInt32 {
        if used == 4 {
            buffer = Self.philox(counter: (block, stream.0, stream.1, stream.2), key: key)
            block &+= 1
            used = 0
        }
        defer { used += 1 }
        switch used {
        case 0: return buffer.0
        case 1: return buffer.1
        case 2: return buffer.2
        default: return buffer.3
        }
    }

    /// Uniform in [0, 1), with 24 bits.
    package mutating func uniform() -> Float { Float(next() >> 8) * 0x1p-24 }

    /// Uniform in [low, high).
    package mutating func uniform(_ low: Float, _ high: Float) -> Float { low + (high - low) * uniform() }

    /// Uniform integer in 0..<bound, without noticeable bias (64-bit multiply-shift).
    package mutating func integer(below bound: Int) -> Int {
        precondition(bound > 0 && bound <= UInt32.max, "bound must lie in 1...2^32-1")
        let bits = UInt64(next()) << 32 | UInt64(next())
        return Int(bits.multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// Standard normal by Box–Muller, computed in double so that the tails are exact.
    package mutating func normal() -> Float {
        if let spare = spareNormal {
            spareNormal = nil
            return spare
        }
        let u1 = (Double(next()) + 0.5) * 0x1p-32
        let u2 = Double(next()) * 0x1p-32
        let radius = (-2 * log(u1)).squareRoot()
        spareNormal = Float(radius * sin(2 * .pi * u2))
        return Float(radius * cos(2 * .pi * u2))
    }

    /// Fills `out` with standard normals.
    package mutating func fillNormal(_ out: UnsafeMutableBufferPointer<Float>) {
        for index in out.indices { out[index] = normal() }
    }

    /// Ten rounds of Philox4x32.
    static func philox(
        counter: (UInt32, UInt32, UInt32, UInt32), key: (UInt32, UInt32)
    ) -> (UInt32, UInt32, UInt32, UInt32) {
        var c = counter
        var k = key
        for _ in 0..<10 {
            let p0 = UInt64(0xD251_1F53) &* UInt64(c.0)
            let p1 = UInt64(0xCD9E_8D57) &* UInt64(c.2)
            c = (
                UInt32(truncatingIfNeeded: p1 >> 32) ^ c.1 ^ k.0,
                UInt32(truncatingIfNeeded: p1),
                UInt32(truncatingIfNeeded: p0 >> 32) ^ c.3 ^ k.1,
                UInt32(truncatingIfNeeded: p0)
            )
            k = (k.0 &+ 0x9E37_79B9, k.1 &+ 0xBB67_AE85)
        }
        return c
    }
}

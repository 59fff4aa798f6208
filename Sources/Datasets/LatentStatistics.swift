import Foundation
import Support

/// Mean and standard deviation of samples, by channel, from sums that can be added over shards and ranks.
///
/// For latents with a posterior, the standard deviation is that of z = mean + exp(logvar / 2)·noise. Its
/// variance is Var(mean) + E[exp(logvar)], so no noise needs to be drawn.
package struct LatentStatistics: Equatable, Sendable {
    package let channels: Int
    /// Number of values in each channel.
    package private(set) var count = 0.0
    private var sum: [Double]
    private var sumOfSquares: [Double]
    private var sumOfVariances: [Double]

    package init(channels: Int) {
        self.channels = channels
        sum = Array(repeating: 0, count: channels)
        sumOfSquares = sum
        sumOfVariances = sum
    }

    /// Adds values of shape [..., C]; `logvar` has the same shape.
    package mutating func add(_ values: UnsafeBufferPointer<Float>, logvar: UnsafeBufferPointer<Float>? = nil)
    {
        precondition(values.count % channels == 0 && logvar?.count ?? values.count == values.count)
        for c in 0..<channels {
            var (s, q, v) = (0.0, 0.0, 0.0)
            for index in stride(from: c, to: values.count, by: channels) {
                let value = Double(values[index])
                s += value
                q += value * value
                if let logvar { v += Double(exp(min(max(logvar[index], -30), 20))) }
            }
            sum[c] += s
            sumOfSquares[c] += q
            sumOfVariances[c] += v
        }
        count += Double(values.count / channels)
    }

    package mutating func add(_ other: LatentStatistics) {
        precondition(other.channels == channels)
        count += other.count
        for c in 0..<channels {
            sum[c] += other.sum[c]
            sumOfSquares[c] += other.sumOfSquares[c]
            sumOfVariances[c] += other.sumOfVariances[c]
        }
    }

    /// False if any value was NaN or infinite.
    package var isFinite: Bool { (sum + sumOfSquares + sumOfVariances).allSatisfy(\.isFinite) }

    /// Mean of each channel.
    package var channelMeans: [Double] { sum.map { $0 / max(count, 1) } }

    /// Standard deviation of each channel around its own mean.
    package var channelStds: [Double] {
        (0..<channels).map { Self.std(count, sum[$0], sumOfSquares[$0], sumOfVariances[$0]) }
    }

    package var mean: Double { sum.reduce(0, +) / max(count * Double(channels), 1) }

    /// Standard deviation of all values around their common mean.
    package var std: Double {
        Self.std(
            count * Double(channels), sum.reduce(0, +), sumOfSquares.reduce(0, +), sumOfVariances.reduce(0, +)
        )
    }

    /// 1/std: scales latents to unit variance.
    /// Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", appendix G.
    package var scalingFactor: Double { 1 / max(std, 1e-6) }

    private static func std(_ n: Double, _ sum: Double, _ squares: Double, _ variances: Double) -> Double {
        guard n > 0 else { return 0 }
        let mean = sum / n
        return max(0, squares / n - mean * mean + variances / n).squareRoot()
    }

    // MARK: JSON

    /// The sums, to be added over shards.
    var sums: JSONValue {
        [
            "count": .number(count),
            "sum": .array(sum.map { .number($0) }),
            "sum_of_squares": .array(sumOfSquares.map { .number($0) }),
            "sum_of_variances": .array(sumOfVariances.map { .number($0) }),
        ]
    }

    init(sums fields: JSONFields) throws(DatasetError) {
        let sum = try fields.doubles("sum")
        self.init(channels: sum.count)
        count = try fields.double("count")
        self.sum = sum
        sumOfSquares = try fields.doubles("sum_of_squares")
        sumOfVariances = try fields.doubles("sum_of_variances")
        guard sumOfSquares.count == channels, sumOfVariances.count == channels, channels > 0 else {
            throw DatasetError(.damaged, "\(fields.file): the sums have different numbers of channels")
        }
    }

    /// The derived values, for readers of the manifest.
    var summary: JSONValue {
        [
            "mean": .number(mean),
            "std": .number(std),
            "channel_means": .array(channelMeans.map { .number($0) }),
            "channel_stds": .array(channelStds.map { .number($0) }),
            "scaling_factor": .number(scalingFactor),
        ]
    }
}

import Foundation
import Support

/// The result of `prepare`.
package struct PrepareSummary: Sendable {
    package let manifest: PreparedManifest
    /// Number of shards that already existed.
    package let reusedShards: Int
    package let seconds: Double
    /// Path of the preview image.
    package let preview: String

    /// Relative deviation of the configured from the measured scaling factor above which a warning is
    /// printed: 25 %.
    static let tolerance = 0.25
    /// Number of skipped images to list.
    private static let listed = 20

    /// A warning if the first stage's `scaling_factor` differs much from the one that gives its latents unit
    /// variance.
    package var scalingWarning: String? {
        guard let configured = manifest.firstStage?.scalingFactor else { return nil }
        let measured = manifest.statistics.scalingFactor
        guard abs(configured / measured - 1) > Self.tolerance else { return nil }
        return
            "the first stage's scaling_factor is \(Self.short(configured)), but \(Self.short(measured)) "
            + "would give these latents unit variance; set it in the first stage's config.json, unless you "
            + "continue training a U-Net that was trained with \(Self.short(configured))"
    }

    /// The summary for the user.
    package func text(output: String) -> String {
        let (m, s) = (manifest, manifest.statistics)
        var lines: [String] = []
        for item in m.skipped.prefix(Self.listed) { lines.append("skipped: \(item.item): \(item.reason)") }
        if m.skipped.count > Self.listed {
            lines.append(
                "skipped: \(m.skipped.count - Self.listed) more, listed in "
                    + "\(output)/\(PreparedManifest.fileName)"
            )
        }
        let shape = "\(m.height)x\(m.width)x\(m.channels)"
        let reused = reusedShards > 0 ? " (\(reusedShards) reused)" : ""
        let bytes = m.shards.reduce(0) { $0 + $1.bytes }
        lines += [
            "\(m.count) \(m.job.kind == .latents ? "latents" : "images") of \(shape) in \(m.shards.count) "
                + "shards\(reused), "
                + "\(String(format: "%.1f", Double(bytes) / 1e6)) MB, \(duration(seconds))",
            "measured: mean \(Self.short(s.mean)), std \(Self.short(s.std)); by channel: mean "
                + "\(Self.list(s.channelMeans)), std \(Self.list(s.channelStds))",
        ]
        if !m.skipped.isEmpty { lines[lines.count - 2] += "; \(m.skipped.count) skipped" }
        if !m.classNames.isEmpty { lines.append("classes: \(m.classNames.count)") }
        if let first = m.firstStage {
            lines.append(
                "scaling factor: 1/std is \(Self.short(s.scalingFactor)), the first stage has "
                    + Self.short(first.scalingFactor))
        }
        if let scalingWarning { lines.append("warning: \(scalingWarning)") }
        lines.append("preview: \(preview)")
        return lines.joined(separator: "\n")
    }

    private static func short(_ value: Double) -> String { String(format: "%.4g", value) }
    private static func list(_ values: [Double]) -> String {
        "[" + values.map { String(format: "%.3g", $0) }.joined(separator: ", ") + "]"
    }
}

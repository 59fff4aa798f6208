import Configuration
import Foundation
import Imaging
import LDMModel
import Support

/// The result of one evaluation, written as `step-00001000-inception.json` and printed as a table.
package struct EvaluationResult {
    package static let formatVersion = 1

    /// The metrics of one class.
    package struct ClassResult: Sendable {
        package let name: String
        /// Number of samples.
        package let count: Int
        package let metrics: [(name: String, value: Double)]

        package init(name: String, count: Int, metrics: [(name: String, value: Double)]) {
            (self.name, self.count, self.metrics) = (name, count, metrics)
        }
    }

    /// Optimizer updates made; nil if the model does not record the number.
    package var step: Int?
    /// "unet" or "ema-0.9999"; "samples" if the evaluated images came from a folder instead of a model.
    package var weights: String
    package var features: FeatureKind
    package var count: Int
    package var reference: (path: String, count: Int, fingerprint: String)
    package var sampler: SamplingSettings?
    package var metrics: [(name: String, value: Double)]
    /// Metrics within each class, for samples and references with classes.
    package var classes: [ClassResult] = []
    /// Illustrations of the metrics, such as nearest neighbours. Only one rank has them.
    package var images: [(name: String, image: Image?)] = []
    /// Paths relative to the run folder, or to the folder given by `--output`.
    package var pictures: [(name: String, path: String)]
    package var seconds: (sampling: Double, features: Double, measures: Double)

    package init(
        step: Int? = nil, weights: String, features: FeatureKind, count: Int,
        reference: (path: String, count: Int, fingerprint: String), sampler: SamplingSettings? = nil,
        metrics: [(name: String, value: Double)], images: [(name: String, image: Image?)] = [],
        pictures: [(name: String, path: String)],
        seconds: (sampling: Double, features: Double, measures: Double)
    ) {
        (self.step, self.weights, self.features, self.count) = (step, weights, features, count)
        (self.reference, self.sampler, self.metrics) = (reference, sampler, metrics)
        (self.images, self.pictures, self.seconds) = (images, pictures, seconds)
    }

    package var json: JSONValue {
        var values = JSONObject()
        for metric in metrics { values[metric.name] = .finite(metric.value) }
        var files = JSONObject()
        for picture in pictures { files[picture.name] = .string(picture.path) }
        func rounded(_ seconds: Double) -> JSONValue { .number((seconds * 100).rounded() / 100) }
        var byClass = JSONObject()
        for result in classes {
            var values: JSONObject = ["count": .integer(result.count)]
            for metric in result.metrics { values[metric.name] = .finite(metric.value) }
            byClass[result.name] = .object(values)
        }
        var object: JSONObject = [
            "format_version": .integer(Self.formatVersion),
            "step": step.map { .integer($0) } ?? .null,
            "weights": .string(weights),
            "features": .string(features.rawValue),
            "count": .integer(count),
            "reference": [
                "path": .string(reference.path), "count": .integer(reference.count),
                "fingerprint": .string(reference.fingerprint),
            ],
            "sampler": sampler.map {
                [
                    "method": $0.method.map { .string($0.rawValue) } ?? .null, "steps": .integer($0.steps),
                    "eta": .number($0.eta), "seed": .integer(Int(clamping: $0.seed)),
                ]
            } ?? .null,
            "metrics": .object(values),
            "pictures": .object(files),
            "seconds": [
                "sampling": rounded(seconds.sampling), "features": rounded(seconds.features),
                "measures": rounded(seconds.measures),
            ],
        ]
        if !byClass.isEmpty { object["classes"] = .object(byClass) }
        return .object(object)
    }

    /// `step-00001000-vae`, or `evaluation-vae` if the step is unknown. The name contains the features
    /// because one step can be evaluated with several kinds.
    package static func stem(step: Int?, features: FeatureKind) -> String {
        guard let step else { return "evaluation-\(features)" }
        return "step-\(padded(step, digits: 8))-\(features)"
    }

    /// The printed table: one line per metric, with a remark on how to read the value.
    package var table: String {
        let titles: [String: (title: String, meaning: String)] = [
            "fid": ("FID", "lower is better"),
            "fd_vae": ("Fréchet distance of latents (not FID)", "lower is better"),
            "fd_pixel": ("Fréchet distance of pixels (not FID)", "lower is better"),
            "kid": ("KID", "lower is better"),
            "kd_vae": ("kernel distance of latents (not KID)", "lower is better"),
            "kd_pixel": ("kernel distance of pixels (not KID)", "lower is better"),
            "kid_in_class": ("KID within classes", "mean over classes, lower is better"),
            "kd_vae_in_class": ("kernel distance within classes", "mean over classes, lower is better"),
            "kd_pixel_in_class": ("kernel distance within classes", "mean over classes, lower is better"),
            "precision": ("precision", "of the samples, look real"),
            "recall": ("recall", "of the reference, is reached"),
            "density": ("density", "1 as dense as the reference"),
            "coverage": ("coverage", "of the reference, is covered"),
            "mean_pairwise_distance": ("distance between samples", "mean"),
            "duplicates": ("duplicates", "samples close to another sample"),
            "nearest_training_distance": ("distance to nearest training image", "median"),
            "memorised": ("memorised", "samples close to a training image"),
            "reference_spacing": ("distance between neighbouring images", "median, reference"),
        ]
        let kernel = features.kernelName
        let interval = metrics.filter { ["\(kernel)_low", "\(kernel)_high"].contains($0.name) }.map(\.value)
        let rows = metrics.compactMap { metric -> (String, String, String)? in
            guard let (title, meaning) = titles[metric.name] else { return nil }
            var remark = meaning
            if metric.name == kernel, interval.count == 2 {
                remark += ", 95 %: \(Self.text(interval[0])) to \(Self.text(interval[1]))"
            }
            return (title, Self.text(metric.value), remark)
        }
        let width = rows.map(\.0.count).max() ?? 0
        let digits = rows.map(\.1.count).max() ?? 0
        func padded(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(0, width - text.count))
        }
        return rows.map { row in
            padded(row.0, width) + "  " + String(repeating: " ", count: digits - row.1.count) + row.1 + "  "
                + row.2
        }.joined(separator: "\n") + classTable
    }

    /// The classes from the best to the worst, in one line.
    private var classTable: String {
        guard !classes.isEmpty else { return "" }
        let ordered = classes.sorted { ($0.metrics.first?.value ?? 0) < ($1.metrics.first?.value ?? 0) }
        let shown = ordered.map { "\($0.name) \(Self.text($0.metrics.first?.value ?? 0))" }
        return "\n\(features.kernelName) by class: "
            + (shown.count <= 20
                ? shown.joined(separator: ", ")
                : "\(shown.prefix(5).joined(separator: ", ")), ..., \(shown.suffix(5).joined(separator: ", "))")
    }

    /// Prints integers without a fraction and other values with five significant digits.
    private static func text(_ value: Double) -> String {
        value == value.rounded() && abs(value) >= 1 || value == 0
            ? String(Int(value)) : String(format: "%.5g", value)
    }
}

extension EvaluationResult {
    /// The fields of the evaluation's line in metrics.jsonl.
    package var fields: JSONObject {
        var fields: JSONObject = ["features": .string(features.rawValue), "count": .integer(count)]
        for metric in metrics { fields[metric.name] = .finite(metric.value) }
        return fields
    }

    /// A one-line summary for display: the metrics before the first confidence bound, then recall.
    package var summary: String {
        let shown = metrics.prefix { !$0.name.hasSuffix("_low") } + metrics.filter { $0.name == "recall" }
        return shown.map { "\($0.name) \(String(format: "%.5g", $0.value))" }.joined(separator: "  ")
    }
}

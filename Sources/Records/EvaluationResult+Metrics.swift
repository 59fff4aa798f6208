import Support

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

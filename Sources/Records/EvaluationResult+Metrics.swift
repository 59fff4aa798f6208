import Support

extension EvaluationResult {
    /// What a line of metrics.jsonl holds of it.
    package var fields: JSONObject {
        var fields: JSONObject = ["features": .string(features.rawValue), "count": .integer(count)]
        for metric in metrics { fields[metric.name] = .finite(metric.value) }
        return fields
    }

    /// One line for people.
    package var summary: String {
        let shown = metrics.prefix { !$0.name.hasSuffix("_low") } + metrics.filter { $0.name == "recall" }
        return shown.map { "\($0.name) \(String(format: "%.5g", $0.value))" }.joined(separator: "  ")
    }
}

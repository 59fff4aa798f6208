import Configuration
import FileFormats

/// A key whose value differs between two configurations.
package struct ConfigurationDifference: Sendable, Equatable {
    /// The full key with its sections, such as "optimizer.learning_rate".
    package let key: String
    /// The value as JSON; nil if the key is absent.
    package let old: String?
    package let new: String?

    /// All keys whose values differ between two resolved configurations (YAML): first those of the old one,
    /// in its order, then those only in the new one. A list counts as one value.
    package static func all(from old: String, to new: String) throws(ConfigError) -> [ConfigurationDifference]
    {
        let (before, after) = (
            try leaves(old, "the old configuration"), try leaves(new, "the new configuration")
        )
        let values = Dictionary(after) { first, _ in first }
        let known = Set(before.map(\.0))
        return before.filter { values[$0.0] != $0.1 }.map {
            ConfigurationDifference(key: $0.0, old: $0.1, new: values[$0.0])
        }
            + after.filter { !known.contains($0.0) }.map {
                ConfigurationDifference(key: $0.0, old: nil, new: $0.1)
            }
    }

    private static func leaves(_ yaml: String, _ source: String) throws(ConfigError) -> [(String, String)] {
        var found: [(String, String)] = []
        func walk(_ node: ConfigNode, _ path: String) {
            guard let entries = node.entries, !entries.isEmpty else {
                found.append((path, (try? node.json.text()) ?? "not a number"))
                return
            }
            for entry in entries { walk(entry.node, path.isEmpty ? entry.key : "\(path).\(entry.key)") }
        }
        walk(try YAMLNode.parse(yaml, source: source), "")
        return found
    }
}

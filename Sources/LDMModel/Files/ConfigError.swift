/// What is wrong with a configuration, in one line: file, line, key, what was found, what was expected.
public struct ConfigError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The sort of mistake.
    public enum Kind: Sendable, Equatable {
        /// The file cannot be read.
        case file
        /// The text is not YAML or JSON.
        case syntax
        /// A key that nothing reads.
        case unknownKey
        /// A key that must be given is not.
        case missingKey
        /// A string where a number belongs, and the like.
        case wrongType
        /// Right type, impossible value.
        case invalidValue
        /// Valid for diffusers, but not built here.
        case unsupported
    }

    public var kind: Kind
    /// Keys from the root of the configuration to the mistake.
    public var path: [String]
    public var message: String
    public var location: ConfigNode.Location?

    public init(
        _ kind: Kind, at path: [String] = [], _ message: String, location: ConfigNode.Location? = nil
    ) {
        self.kind = kind
        self.path = path
        self.message = message
        self.location = location
    }

    public var description: String {
        var text = ""
        if let location { text += "\(location): " }
        if !path.isEmpty { text += path.joined(separator: ".") + ": " }
        return text + message
    }

    /// The same error, for a configuration that stands under `prefix` in a larger one: the path grows, and
    /// the location is looked up in the section's node.
    public func placed(in node: ConfigNode, under prefix: [String]) -> ConfigError {
        var error = self
        error.path = prefix + path
        if error.location == nil {
            var place = node
            for key in path {
                guard let next = place[key] else { break }
                place = next
            }
            error.location = place.location ?? node.location
        }
        return error
    }
}

/// The candidate nearest to a misspelt name, or nil if none is near.
///
/// Distance is optimal string alignment (insertions, deletions, substitutions, swaps of neighbours); a third
/// of the name's length may differ, two letters at least. A name that contains the other counts as near, too.
public func nearestName(to name: String, among candidates: [String]) -> String? {
    let scored = candidates.map { (name: $0, distance: editDistance(name, $0)) }
    if let best = scored.min(by: { $0.distance < $1.distance }), best.distance <= max(2, name.count / 3) {
        return best.name
    }
    guard name.count >= 3 else { return nil }
    return candidates.filter { $0.contains(name) || name.contains($0) && $0.count >= 3 }.min {
        $0.count < $1.count
    }
}

private func editDistance(_ first: String, _ second: String) -> Int {
    let a = Array(first.lowercased())
    let b = Array(second.lowercased())
    if a.isEmpty || b.isEmpty { return max(a.count, b.count) }
    var beforeLast = [Int](repeating: 0, count: b.count + 1)
    var last = Array(0...b.count)
    for i in 1...a.count {
        var row = [Int](repeating: i, count: b.count + 1)
        for j in 1...b.count {
            let substitution = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
            row[j] = min(last[j] + 1, row[j - 1] + 1, substitution)
            if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
                row[j] = min(row[j], beforeLast[j - 2] + 1)
            }
        }
        beforeLast = last
        last = row
    }
    return last[b.count]
}

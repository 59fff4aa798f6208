import Support

/// A type that can be read from a configuration value.
package protocol ConfigDecodable: Sendable {
    /// Reads the value, or throws a `ConfigError` with the found and the expected value.
    init(config node: ConfigNode, path: [String]) throws(ConfigError)
}

/// A value from a fixed list of words, such as `prediction: epsilon`.
package protocol ConfigChoice: ConfigDecodable, CaseIterable, RawRepresentable where RawValue == String {}

extension ConfigChoice {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        if case .string(let text) = node.value, let choice = Self(rawValue: text) {
            self = choice
            return
        }
        let words = Self.allCases.map(\.rawValue).joined(separator: ", ")
        var kind = ConfigError.Kind.wrongType
        if case .string = node.value { kind = .invalidValue }
        throw ConfigError(
            kind, at: path, "found \(node.found), expected one of \(words)", location: node.location)
    }
}

/// Reads one section of a configuration whose keys are the cases of `Key`.
///
/// The initializer rejects keys that are not a case of `Key`, and suggests the nearest valid key.
package struct ConfigReader<Key: CaseIterable & RawRepresentable> where Key.RawValue == String {
    /// The section.
    package let node: ConfigNode
    /// Keys from the root to the section.
    package let path: [String]

    /// - Parameters:
    ///   - node: the section; must be a mapping.
    ///   - path: keys from the root to the section, for messages.
    ///   - ignoringUnderscored: skip keys such as diffusers' `_class_name` and `_diffusers_version`.
    ///   - ignoring: other keys to skip.
    package init(
        _ node: ConfigNode, path: [String] = [], ignoringUnderscored: Bool = false, ignoring: Set<String> = []
    ) throws(ConfigError) {
        guard let entries = node.entries else {
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected a section of keys",
                location: node.location)
        }
        let valid = Key.allCases.map(\.rawValue)
        for entry in entries where Key(rawValue: entry.key) == nil {
            if ignoringUnderscored && entry.key.hasPrefix("_") || ignoring.contains(entry.key) { continue }
            let hint =
                nearestName(to: entry.key, among: valid).map { "did you mean '\($0)'?" }
                ?? "valid keys: \(valid.joined(separator: ", "))"
            throw ConfigError(
                .unknownKey, at: path + [entry.key], "unknown key; \(hint)", location: entry.node.location)
        }
        self.node = node
        self.path = path
    }

    /// Whether the key is present, even with a null value.
    package func has(_ key: Key) -> Bool { node[key.rawValue] != nil }

    /// The node of a key, or nil if the key is absent.
    package func child(_ key: Key) -> ConfigNode? { node[key.rawValue] }

    /// Keys from the root to this key.
    package func path(of key: Key) -> [String] { path + [key.rawValue] }

    /// The key's value, or the default if the key is absent; throws for null.
    package func read<Value: ConfigDecodable>(_ key: Key, default value: Value) throws(ConfigError) -> Value {
        guard let node = child(key) else { return value }
        return try Value(config: node, path: path(of: key))
    }

    /// The key's value, nil for null, or the default if the key is absent.
    package func read<Value: ConfigDecodable>(
        optional key: Key, default value: Value? = nil
    ) throws(ConfigError) -> Value? {
        guard let node = child(key) else { return value }
        if node.value == .null { return nil }
        return try Value(config: node, path: path(of: key))
    }

    /// The key's value; throws if the key is absent.
    package func read<Value: ConfigDecodable>(required key: Key) throws(ConfigError) -> Value {
        guard let node = child(key) else { throw missing(key) }
        return try Value(config: node, path: path(of: key))
    }

    /// The error for a missing required key.
    package func missing(_ key: Key) -> ConfigError {
        ConfigError(.missingKey, at: path(of: key), "this key must be given", location: node.location)
    }

    /// Throws an error with `message` for the key if the condition is false.
    package func check(_ condition: Bool, _ key: Key, _ message: @autoclosure () -> String)
        throws(ConfigError)
    {
        if condition { return }
        throw ConfigError(
            .invalidValue, at: path(of: key), message(), location: child(key)?.location ?? node.location)
    }
}

extension Int: ConfigDecodable {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .integer(let value) = node.value else {
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected a whole number", location: node.location)
        }
        self = value
    }
}

extension Double: ConfigDecodable {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        switch node.value {
        case .integer(let value): self = Double(value)
        case .number(let value) where value.isFinite: self = value
        default:
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected a finite number", location: node.location
            )
        }
    }
}

extension Bool: ConfigDecodable {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .bool(let value) = node.value else {
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected true or false", location: node.location)
        }
        self = value
    }
}

extension String: ConfigDecodable {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .string(let value) = node.value else {
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected a string", location: node.location)
        }
        self = value
    }
}

extension Array: ConfigDecodable where Element: ConfigDecodable {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .sequence(let nodes) = node.value else {
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected a list", location: node.location)
        }
        var elements: [Element] = []
        elements.reserveCapacity(nodes.count)
        for (index, node) in nodes.enumerated() {
            var elementPath = path
            if let last = elementPath.popLast() { elementPath.append("\(last)[\(index)]") }
            elements.append(try Element(config: node, path: elementPath))
        }
        self = elements
    }
}

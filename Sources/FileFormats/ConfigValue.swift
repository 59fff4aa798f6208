import Support

/// A type of configuration values.
package protocol ConfigValue: Sendable {
    /// Reads a value, or throws a `ConfigError` with the found and the expected value.
    init(config node: ConfigNode, path: [String]) throws(ConfigError)
    /// The value as it is written.
    var node: ConfigNode { get }
    /// The type's name in help, e.g. "whole number".
    static var typeName: String { get }
}

/// A value from a fixed list of words, such as `prediction: epsilon`.
package protocol ConfigChoice: ConfigValue, CaseIterable, RawRepresentable where RawValue == String {}

extension ConfigChoice {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        if case .string(let text) = node.value, let choice = Self(rawValue: text) {
            self = choice
            return
        }
        var kind = ConfigError.Kind.wrongType
        if case .string = node.value { kind = .invalidValue }
        throw ConfigError(
            kind, at: path, "found \(node.found), expected \(Self.typeName)", location: node.location)
    }

    package var node: ConfigNode { .string(rawValue) }
    package static var typeName: String {
        (Self.allCases.count > 1 ? "one of " : "") + Self.allCases.map(\.rawValue).joined(separator: ", ")
    }
}

extension Int: ConfigValue {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .integer(let value) = node.value else { throw node.isNot(Self.self, path) }
        self = value
    }
    package var node: ConfigNode { .integer(self) }
    package static var typeName: String { "a whole number" }
}

/// Written as `Int`; larger values cannot be read.
extension UInt64: ConfigValue {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let value = try Int(config: node, path: path)
        guard let unsigned = UInt64(exactly: value) else {
            throw ConfigError(
                .invalidValue, at: path, "found \(value), expected 0 or more", location: node.location)
        }
        self = unsigned
    }
    package var node: ConfigNode { .integer(Int(clamping: self)) }
    package static var typeName: String { Int.typeName }
}

extension Double: ConfigValue {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        switch node.value {
        case .integer(let value): self = Double(value)
        case .number(let value) where value.isFinite: self = value
        default: throw node.isNot(Self.self, path)
        }
    }
    package var node: ConfigNode { .number(self) }
    package static var typeName: String { "a finite number" }
}

extension Bool: ConfigValue {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .bool(let value) = node.value else { throw node.isNot(Self.self, path) }
        self = value
    }
    package var node: ConfigNode { .bool(self) }
    package static var typeName: String { "true or false" }
}

extension String: ConfigValue {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .string(let value) = node.value else { throw node.isNot(Self.self, path) }
        self = value
    }
    package var node: ConfigNode { .string(self) }
    package static var typeName: String { "a string" }
}

extension Array: ConfigValue where Element: ConfigValue {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        guard case .sequence(let nodes) = node.value else { throw node.isNot(Self.self, path) }
        var elements: [Element] = []
        elements.reserveCapacity(nodes.count)
        for (index, node) in nodes.enumerated() {
            elements.append(try Element(config: node, path: path.indexed(index)))
        }
        self = elements
    }
    package var node: ConfigNode { ConfigNode(.sequence(map(\.node))) }
    package static var typeName: String { "a list, each \(Element.typeName)" }
}

/// Null stands for nil.
extension Optional: ConfigValue where Wrapped: ConfigValue {
    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        self = node.value == .null ? nil : try Wrapped(config: node, path: path)
    }
    package var node: ConfigNode { self?.node ?? .null }
    package static var typeName: String { "\(Wrapped.typeName), or null" }
}

extension ConfigNode {
    fileprivate func isNot<Value: ConfigValue>(_ type: Value.Type, _ path: [String]) -> ConfigError {
        ConfigError(.wrongType, at: path, "found \(found), expected \(Value.typeName)", location: location)
    }
}

extension [String] {
    /// The path of an element: its index is appended to the last key.
    func indexed(_ index: Int) -> [String] {
        guard let last else { return self }
        return dropLast() + ["\(last)[\(index)]"]
    }
}

/// The valid values of a key, with their description for messages and help.
package struct ConfigRange<Value> {
    /// e.g. "1 or more".
    let text: String
    let contains: (Value) -> Bool

    package static func `where`(_ text: String, _ contains: @escaping (Value) -> Bool) -> ConfigRange {
        ConfigRange(text: text, contains: contains)
    }
}

extension ConfigRange where Value: Comparable & ConfigValue {
    /// - Parameter text: the description, if some of the values have a special meaning.
    package static func atLeast(_ low: Value, _ text: String? = nil) -> ConfigRange {
        .where(text ?? "\(low.node.found) or more") { $0 >= low }
    }
    package static func above(_ low: Value) -> ConfigRange {
        .where("more than \(low.node.found)") { $0 > low }
    }
    package static func within(_ range: ClosedRange<Value>) -> ConfigRange {
        .where("\(range.lowerBound.node.found) to \(range.upperBound.node.found)") { range.contains($0) }
    }
    package static func from(_ low: Value, below high: Value) -> ConfigRange {
        .where("\(low.node.found) or more and less than \(high.node.found)") { $0 >= low && $0 < high }
    }
    package static func above(_ low: Value, below high: Value) -> ConfigRange {
        .where("more than \(low.node.found) and less than \(high.node.found)") { $0 > low && $0 < high }
    }
}

extension ConfigRange<String> {
    /// Any text but the empty one; `text` says what it names.
    package static func nonEmpty(_ text: String) -> ConfigRange { .where(text) { !$0.isEmpty } }
}

import Support

/// An untyped configuration tree, parsed from JSON or YAML.
///
/// Each node records its location, so that later errors can report file and line.
package struct ConfigNode: Sendable, Equatable {
    /// The content of a node.
    package indirect enum Value: Sendable, Equatable {
        case null
        case bool(Bool)
        case integer(Int)
        case number(Double)
        case string(String)
        case sequence([ConfigNode])
        case mapping([Entry])
    }

    /// One key of a mapping with its value.
    package struct Entry: Sendable, Equatable {
        package var key: String
        package var node: ConfigNode

        package init(_ key: String, _ node: ConfigNode) {
            self.key = key
            self.node = node
        }
    }

    /// Where a node was read from.
    package struct Location: Sendable, Equatable, CustomStringConvertible {
        /// A file's path, or another source such as "--set model.dropout=0.1".
        package var source: String
        /// Line from 1; nil if the format does not provide one.
        package var line: Int?

        package init(source: String, line: Int? = nil) {
            self.source = source
            self.line = line
        }

        package var description: String { line.map { "\(source):\($0)" } ?? source }
    }

    package var value: Value
    package var location: Location?

    package init(_ value: Value, at location: Location? = nil) {
        self.value = value
        self.location = location
    }

    /// Converts a JSON document. JSON values have no line numbers, so all nodes have the same location.
    package init(_ json: JSONValue, source: String? = nil) {
        let location = source.map { Location(source: $0) }
        switch json {
        case .null: self.init(.null, at: location)
        case .bool(let value): self.init(.bool(value), at: location)
        case .integer(let value): self.init(.integer(value), at: location)
        case .number(let value): self.init(.number(value), at: location)
        case .string(let value): self.init(.string(value), at: location)
        case .array(let elements):
            self.init(.sequence(elements.map { ConfigNode($0, source: source) }), at: location)
        case .object(let object):
            let entries = object.members.map { Entry($0.key, ConfigNode($0.value, source: source)) }
            self.init(.mapping(entries), at: location)
        }
    }

    /// The tree as JSON.
    package var json: JSONValue {
        switch value {
        case .null: return .null
        case .bool(let value): return .bool(value)
        case .integer(let value): return .integer(value)
        case .number(let value): return .number(value)
        case .string(let value): return .string(value)
        case .sequence(let nodes): return .array(nodes.map(\.json))
        case .mapping(let entries):
            var object = JSONObject()
            for entry in entries { object[entry.key] = entry.node.json }
            return .object(object)
        }
    }

    /// The entries of a mapping, or nil.
    package var entries: [Entry]? {
        if case .mapping(let entries) = value { return entries }
        return nil
    }

    /// The value of a key in a mapping. Setting a new key appends it; setting a key of any other node turns
    /// the node into a mapping.
    package subscript(key: String) -> ConfigNode? {
        get { entries?.first { $0.key == key }?.node }
        set {
            var entries = entries ?? []
            let index = entries.firstIndex { $0.key == key }
            switch (index, newValue) {
            case (let index?, let node?): entries[index].node = node
            case (let index?, nil): entries.remove(at: index)
            case (nil, let node?): entries.append(Entry(key, node))
            case (nil, nil): break
            }
            value = .mapping(entries)
        }
    }

    /// The found value as error messages show it: the value itself if it is short, otherwise its kind.
    package var found: String {
        switch value {
        case .null: return "null"
        case .bool(let value): return value ? "true" : "false"
        case .integer(let value): return String(value)
        case .number(let value): return Self.short(value)
        case .string(""): return "nothing"
        case .string(let value): return "the string '\(value.count > 60 ? value.prefix(57) + "..." : value)'"
        case .sequence(let nodes): return "a list of \(nodes.count)"
        case .mapping(let entries):
            return entries.count == 1 ? "a section of 1 key" : "a section of \(entries.count) keys"
        }
    }

    /// A number without a fraction that is zero.
    private static func short(_ value: Double) -> String {
        let text = value.description
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }
}

extension ConfigNode {
    /// A mapping in the given order, for writing.
    package static func mapping(_ pairs: KeyValuePairs<String, ConfigNode>) -> ConfigNode {
        ConfigNode(.mapping(pairs.map { Entry($0.key, $0.value) }))
    }

    package static func integer(_ value: Int?) -> ConfigNode {
        ConfigNode(value.map { Value.integer($0) } ?? Value.null)
    }
    package static func number(_ value: Double?) -> ConfigNode {
        ConfigNode(value.map { Value.number($0) } ?? Value.null)
    }
    package static func bool(_ value: Bool) -> ConfigNode { ConfigNode(Value.bool(value)) }
    package static func string(_ value: String?) -> ConfigNode {
        ConfigNode(value.map { Value.string($0) } ?? Value.null)
    }
    package static func integers(_ values: [Int]) -> ConfigNode {
        ConfigNode(.sequence(values.map { .integer($0) }))
    }
    package static func numbers(_ values: [Double]) -> ConfigNode {
        ConfigNode(.sequence(values.map { .number($0) }))
    }
    package static func strings(_ values: [String]) -> ConfigNode {
        ConfigNode(.sequence(values.map { .string($0) }))
    }
    package static var null: ConfigNode { ConfigNode(Value.null) }
}

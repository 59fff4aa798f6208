import Support

/// A section of a configuration. Its keys are declared once, in `keys`; reading, writing, help and the rules for
/// resuming follow from the declarations.
package protocol ConfigSection: Sendable, Equatable {
    /// The section with its defaults. For required keys, the value of an example.
    init()
    /// The keys in the order in which they are written.
    static var keys: [ConfigKey<Self>] { get }
    /// Whether a key that is not declared is skipped instead of rejected.
    static func ignores(_ key: String) -> Bool
    /// Reads what is not a key, before the keys are read.
    mutating func begin(_ node: ConfigNode, path: [String]) throws(ConfigError)
    /// Sets what follows from several keys, after all have been read.
    mutating func end(_ node: ConfigNode)
    /// Validates constraints among keys; the error's path is relative to this section.
    func check() throws(ConfigError)
}

extension ConfigSection {
    package static func ignores(_ key: String) -> Bool { false }
    package mutating func begin(_ node: ConfigNode, path: [String]) throws(ConfigError) {}
    package mutating func end(_ node: ConfigNode) {}
    package func check() throws(ConfigError) {}

    /// Reads and validates a section.
    ///
    /// - Parameters:
    ///   - path: keys from the root to the section, for messages.
    ///   - defaults: the values of absent keys.
    package init(
        config node: ConfigNode, path: [String] = [], defaults: Self = Self()
    ) throws(ConfigError) {
        self = defaults
        try begin(node, path: path)
        try Self.checkKeys(of: node, path: path)
        for key in Self.keys {
            if let child = node[key.name] {
                try key.read(child, path + [key.name], &self)
            } else if key.isRequired {
                throw ConfigError(
                    .missingKey, at: path + [key.name], "this key must be given", location: node.location)
            } else {
                try key.prepare(&self)
            }
        }
        end(node)
        do throws(ConfigError) {
            try check()
        } catch {
            throw error.placed(in: node, under: path)
        }
    }

    /// Rejects keys that are not declared, and suggests the nearest one that is.
    package static func checkKeys(of node: ConfigNode, path: [String]) throws(ConfigError) {
        guard let entries = node.entries else {
            throw ConfigError(
                .wrongType, at: path, "found \(node.found), expected a section of keys",
                location: node.location)
        }
        let valid = keys.map(\.name)
        for entry in entries where !valid.contains(entry.key) && !ignores(entry.key) {
            let hint =
                nearestName(to: entry.key, among: valid).map { "did you mean '\($0)'?" }
                ?? "valid keys: \(valid.joined(separator: ", "))"
            throw ConfigError(
                .unknownKey, at: path + [entry.key], "unknown key; \(hint)", location: entry.node.location)
        }
    }

    /// The section with all keys; reading it yields the same section.
    package var node: ConfigNode {
        ConfigNode(.mapping(Self.keys.compactMap { key in key.write(self).map { .init(key.name, $0) } }))
    }

    /// Throws an error for the key if the condition is false; for `check()`.
    package func require(
        _ condition: Bool, _ key: String, _ message: @autoclosure () -> String
    ) throws(ConfigError) {
        if !condition { throw ConfigError(.invalidValue, at: [key], message()) }
    }

    /// All keys of this section and of the sections in it.
    package static func descriptions(under path: [String] = []) -> [ConfigKeyDescription] {
        keys.map { $0.describe(path) }
    }
}

/// What a changed value of a key means for weights that were trained with another value.
package enum ChangeEffect: Sendable, Equatable {
    /// The weights keep their meaning, and training continues towards the same target.
    case harmless
    /// The weights, moments or averages depend on the old value, for this reason.
    case harmful(String)
    /// The weights cannot be used, for this reason.
    case impossible(String)
}

/// One key: where its value is stored, which values are valid, and what it means.
package struct ConfigKey<Section> {
    package let name: String
    let isRequired: Bool
    let read: (ConfigNode, [String], inout Section) throws(ConfigError) -> Void
    /// Sets a default that depends on keys before this one, if the key is absent.
    let prepare: (inout Section) throws(ConfigError) -> Void
    /// nil omits the key.
    let write: (Section) -> ConfigNode?
    let describe: (_ path: [String]) -> ConfigKeyDescription
}

/// A key as help and documentation present it.
package struct ConfigKeyDescription: Sendable {
    package let path: [String]
    package let help: String
    /// The valid values, e.g. "1 or more".
    package let values: String
    package let isRequired: Bool
    /// Whether it is a section that may be absent.
    package var isOptional = false
    /// The default value, or an example if the key is required.
    package let value: ConfigNode
    /// The default in words, if it depends on other keys.
    package let defaultText: String?
    package let change: ChangeEffect
    /// The keys of a section; nil for a value.
    package let children: [ConfigKeyDescription]?

    /// The key as `--set` names it, e.g. "train.steps".
    package var name: String { path.joined(separator: ".") }
    /// This key, or the keys in this section.
    package var leaves: [ConfigKeyDescription] { children.map { $0.flatMap(\.leaves) } ?? [self] }
}

extension ConfigKey where Section: ConfigSection {
    /// A key of any valid value of its type.
    ///
    /// - Parameters:
    ///   - change: what a changed value means for trained weights.
    ///   - defaultText: the default in words, if it depends on other keys.
    ///   - omitted: whether the key is not written. Keys added later are omitted at their default, so that
    ///     configurations from before they existed keep their hash.
    package init<Value: ConfigValue>(
        _ name: String, _ value: WritableKeyPath<Section, Value>, _ change: ChangeEffect, _ help: String,
        isRequired: Bool = false, defaultText: String? = nil,
        omitted: @escaping (Section) -> Bool = { _ in false }
    ) {
        self.init(
            name, value, valid: Value.typeName, validate: { _, _, _ in }, change, help,
            isRequired: isRequired,
            defaultText: defaultText, omitted: omitted)
    }

    /// A key whose values are restricted to a range.
    package init<Value: ConfigValue>(
        _ name: String, _ value: WritableKeyPath<Section, Value>, _ range: ConfigRange<Value>,
        _ change: ChangeEffect, _ help: String, isRequired: Bool = false, defaultText: String? = nil,
        omitted: @escaping (Section) -> Bool = { _ in false }
    ) {
        self.init(
            name, value, valid: range.text,
            validate: { value, node, path throws(ConfigError) in try range.check(value, node, path) }, change,
            help,
            isRequired: isRequired, defaultText: defaultText, omitted: omitted)
    }

    /// A key that may be null; the range restricts its other values.
    package init<Value: ConfigValue>(
        _ name: String, _ value: WritableKeyPath<Section, Value?>, _ range: ConfigRange<Value>,
        _ change: ChangeEffect, _ help: String, defaultText: String? = nil,
        omitted: @escaping (Section) -> Bool = { _ in false }
    ) {
        let text = range.text.contains("null") ? range.text : "\(range.text), or null"
        let range = ConfigRange(text: text, contains: range.contains)
        self.init(
            name, value, valid: range.text,
            validate: { value, node, path throws(ConfigError) in
                if let value { try range.check(value, node, path) }
            }, change, help, defaultText: defaultText, omitted: omitted)
    }

    /// A key with a list; the range restricts its elements.
    package init<Value: ConfigValue>(
        _ name: String, _ value: WritableKeyPath<Section, [Value]>, _ range: ConfigRange<Value>,
        _ change: ChangeEffect, _ help: String, omitted: @escaping (Section) -> Bool = { _ in false }
    ) {
        self.init(
            name, value, valid: "a list, each \(range.text)",
            validate: { values, node, path throws(ConfigError) in
                guard case .sequence(let nodes) = node.value else { return }
                for (index, (value, node)) in zip(values, nodes).enumerated() {
                    try range.check(value, node, path.indexed(index))
                }
            }, change, help, omitted: omitted)
    }

    private init<Value: ConfigValue>(
        _ name: String, _ place: WritableKeyPath<Section, Value>, valid: String,
        validate: @escaping (Value, ConfigNode, [String]) throws(ConfigError) -> Void,
        _ change: ChangeEffect, _ help: String, isRequired: Bool = false, defaultText: String? = nil,
        omitted: @escaping (Section) -> Bool
    ) {
        self.init(
            name: name, isRequired: isRequired,
            read: { node, path, section throws(ConfigError) in
                let value = try Value(config: node, path: path)
                try validate(value, node, path)
                section[keyPath: place] = value
            }, prepare: { _ in },
            write: { omitted($0) ? nil : $0[keyPath: place].node },
            describe: {
                ConfigKeyDescription(
                    path: $0 + [name], help: help, values: valid, isRequired: isRequired,
                    value: Section()[keyPath: place].node, defaultText: defaultText, change: change,
                    children: nil)
            })
    }

    /// A section in this section; null stands for its defaults.
    ///
    /// - Parameter defaults: the defaults, if they depend on keys before this one.
    package init<Value: ConfigSection>(
        section name: String, _ place: WritableKeyPath<Section, Value>, _ help: String,
        isRequired: Bool = false,
        defaults: @escaping (Section) -> Value = { _ in Value() },
        omitted: @escaping (Section) -> Bool = { _ in false }
    ) {
        self.init(
            name: name, isRequired: isRequired,
            read: { node, path, section throws(ConfigError) in
                let node = node.value == .null ? ConfigNode(.mapping([]), at: node.location) : node
                section[keyPath: place] = try Value(config: node, path: path, defaults: defaults(section))
            }, prepare: { $0[keyPath: place] = defaults($0) },
            write: { omitted($0) ? nil : $0[keyPath: place].node },
            describe: { .section($0 + [name], help, Value.self, isRequired: isRequired) })
    }

    /// A section that may be absent or null.
    package init<Value: ConfigSection>(
        section name: String, _ place: WritableKeyPath<Section, Value?>, _ help: String
    ) {
        self.init(
            name: name, isRequired: false,
            read: { node, path, section throws(ConfigError) in
                section[keyPath: place] = node.value == .null ? nil : try Value(config: node, path: path)
            }, prepare: { _ in }, write: { $0[keyPath: place]?.node },
            describe: {
                var description = ConfigKeyDescription.section(
                    $0 + [name], help, Value.self, isRequired: false)
                description.isOptional = true
                return description
            })
    }

    /// A key of diffusers of which only one value is implemented. It is never ignored: a model with another
    /// value would load, but compute something else.
    package static func fixed(
        _ name: String, _ value: ConfigNode, _ change: ChangeEffect, expected: String? = nil
    ) -> ConfigKey {
        let valid = expected ?? value.text
        return ConfigKey(
            name: name, isRequired: false,
            read: { node, path, _ throws(ConfigError) in
                guard node.value != value.value else { return }
                throw ConfigError(
                    .unsupported, at: path, "found \(node.text), which is not supported; expected \(valid)",
                    location: node.location)
            }, prepare: { _ in }, write: { _ in value },
            describe: {
                ConfigKeyDescription(
                    path: $0 + [name], help: "Only this value is supported.", values: valid,
                    isRequired: false,
                    value: value, defaultText: nil, change: change, children: nil)
            })
    }

    /// A key of diffusers that has no effect here: any value of its type is accepted, and `value` is written.
    package static func ineffective<Value: ConfigValue>(
        _ name: String, _ value: Value, _ change: ChangeEffect
    ) -> ConfigKey {
        ConfigKey(
            name: name, isRequired: false,
            read: { node, path, _ throws(ConfigError) in _ = try Value(config: node, path: path) },
            prepare: { _ in }, write: { _ in value.node },
            describe: {
                ConfigKeyDescription(
                    path: $0 + [name], help: "Has no effect.", values: Value.typeName, isRequired: false,
                    value: value.node, defaultText: nil, change: change, children: nil)
            })
    }
}

extension ConfigKey {
    /// The key for the sections to which it applies. Other sections do not write it, and ignore a value that
    /// is not valid.
    package func applying(to applies: @escaping (Section) -> Bool) -> ConfigKey {
        ConfigKey(
            name: name, isRequired: isRequired,
            read: { node, path, section throws(ConfigError) in
                do throws(ConfigError) {
                    try read(node, path, &section)
                } catch {
                    if applies(section) { throw error }
                }
            }, prepare: prepare, write: { applies($0) ? write($0) : nil }, describe: describe)
    }
}

extension ConfigRange {
    fileprivate func check(_ value: Value, _ node: ConfigNode, _ path: [String]) throws(ConfigError) {
        if contains(value) { return }
        throw ConfigError(
            .invalidValue, at: path, "found \(node.found), expected \(text)", location: node.location)
    }
}

extension ConfigKeyDescription {
    fileprivate static func section<Value: ConfigSection>(
        _ path: [String], _ help: String, _ type: Value.Type, isRequired: Bool
    ) -> ConfigKeyDescription {
        ConfigKeyDescription(
            path: path, help: help, values: "a section", isRequired: isRequired, value: Value().node,
            defaultText: nil, change: .harmless, children: Value.descriptions(under: path))
    }
}

extension ConfigNode {
    /// Like `found`, with strings in quotes only.
    fileprivate var text: String {
        if case .string(let value) = value { return "'\(value)'" }
        return found
    }
}

import FileFormats

/// One `--set a.b=c` of the command line.
struct ConfigurationOverride {
    let path: [String]
    let node: ConfigNode

    /// Parses `a.b=c`. The value is YAML, so `[0.9, 0.99]`, `null` and `"text"` have the same meaning as in
    /// the file.
    init(_ text: String) throws(ConfigError) {
        let source = "--set \(text)"
        guard let equals = text.firstIndex(of: "=") else {
            throw ConfigError(
                .syntax, "expected KEY=VALUE, such as optimizer.learning_rate=1e-4",
                location: .init(source: source))
        }
        path = text[..<equals].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard path.allSatisfy({ !$0.isEmpty && !$0.contains(" ") }) else {
            throw ConfigError(
                .syntax, "expected KEY=VALUE with keys separated by dots", location: .init(source: source))
        }
        var node = try YAMLNode.parse(String(text[text.index(after: equals)...]), source: source)
        Self.relocate(&node, to: .init(source: source))
        self.node = node
    }

    /// Sets the value in a configuration's tree; creates missing sections.
    func apply(to root: inout ConfigNode) throws(ConfigError) {
        try Self.set(&root, path[...], node, whole: path)
    }

    private static func set(
        _ node: inout ConfigNode, _ path: ArraySlice<String>, _ value: ConfigNode, whole: [String]
    ) throws(ConfigError) {
        guard let key = path.first else {
            node = value
            return
        }
        if node.entries == nil, node.value != .null {
            throw ConfigError(
                .wrongType, at: Array(whole.prefix(whole.count - path.count)),
                "found \(node.found), which has no key '\(key)'", location: value.location)
        }
        var child = node[key] ?? ConfigNode(.null, at: value.location)
        try set(&child, path.dropFirst(), value, whole: whole)
        node[key] = child
    }

    private static func relocate(_ node: inout ConfigNode, to location: ConfigNode.Location) {
        node.location = location
        switch node.value {
        case .sequence(var nodes):
            for index in nodes.indices { relocate(&nodes[index], to: location) }
            node.value = .sequence(nodes)
        case .mapping(var entries):
            for index in entries.indices { relocate(&entries[index].node, to: location) }
            node.value = .mapping(entries)
        default: break
        }
    }
}

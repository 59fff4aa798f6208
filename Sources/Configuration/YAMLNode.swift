import FileFormats
import Support
import Yams

/// Converts YAML text to `ConfigNode` and back.
///
/// Plain scalars follow the core schema of YAML 1.2: `true` and `false` are the only Booleans (`yes`, `on`
/// and `off` are strings), `~` and `null` are null, and `2e-4` is a number.
package enum YAMLNode {
    /// Parses one document. Duplicate keys, multiple documents, non-string keys and anything that exceeds
    /// ``YAMLLimits`` are rejected.
    package static func parse(_ text: String, source: String) throws(ConfigError) -> ConfigNode {
        try YAMLLimits.check(text, source: source)
        let document: Yams.Node?
        do {
            document = try Yams.Parser(yaml: text).singleRoot()
        } catch let error as YamlError {
            throw syntaxError(error, source: source)
        } catch {
            throw ConfigError(.syntax, "not valid YAML: \(error)", location: .init(source: source))
        }
        guard let document else { return ConfigNode(.null, at: .init(source: source)) }
        return try convert(document, source: source)
    }

    private static func convert(_ node: Yams.Node, source: String) throws(ConfigError) -> ConfigNode {
        let location = ConfigNode.Location(source: source, line: node.mark?.line)
        switch node {
        case .scalar(let scalar):
            let isPlain = scalar.style == .plain || scalar.style == .any
            return ConfigNode(isPlain ? plain(scalar.string) : .string(scalar.string), at: location)
        case .sequence(let sequence):
            var nodes: [ConfigNode] = []
            for element in sequence { nodes.append(try convert(element, source: source)) }
            return ConfigNode(.sequence(nodes), at: location)
        case .mapping(let mapping):
            var entries: [ConfigNode.Entry] = []
            for (key, value) in mapping {
                guard let name = key.scalar?.string else {
                    throw ConfigError(.syntax, "a key must be a word", location: location)
                }
                var child = try convert(value, source: source)
                // Report an error about an entry at its key's line, even if the value starts on a later line.
                if let line = key.mark?.line { child.location?.line = line }
                entries.append(.init(name, child))
            }
            return ConfigNode(.mapping(entries), at: location)
        case .alias:
            throw ConfigError(.syntax, "an alias without its anchor", location: location)
        }
    }

    /// The value of an unquoted scalar.
    package static func plain(_ text: String) -> ConfigNode.Value {
        switch text {
        case "", "~", "null", "Null", "NULL": return .null
        case "true", "True", "TRUE": return .bool(true)
        case "false", "False", "FALSE": return .bool(false)
        default: break
        }
        let unsigned = text.first == "-" || text.first == "+" ? text.dropFirst() : text[...]
        guard let first = unsigned.first, first.isASCII, first.isNumber || first == "." else {
            return .string(text)
        }
        if let integer = Int(text) { return .integer(integer) }
        // Double() also accepts hexadecimal floats, which are not valid in YAML.
        if unsigned.allSatisfy({ $0.isASCII && ($0.isNumber || ".eE+-".contains($0)) }),
            let number = Double(text)
        {
            return .number(number)
        }
        return .string(text)
    }

    private static func syntaxError(_ error: YamlError, source: String) -> ConfigError {
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            return ConfigError(
                .syntax, "not valid YAML: \(problem)", location: .init(source: source, line: mark.line))
        case .duplicatedKeysInMapping(let duplicates, let context):
            return ConfigError(
                .syntax, "the key '\(duplicates.sorted().first ?? "")' appears twice in one section",
                location: .init(source: source, line: context.mark.line))
        case .reader(let problem, _, _, _):
            return ConfigError(.syntax, "not valid YAML: \(problem)", location: .init(source: source))
        default:
            let firstLine = error.description.split(separator: "\n").first.map(String.init) ?? "unreadable"
            return ConfigError(.syntax, "not valid YAML: \(firstLine)", location: .init(source: source))
        }
    }
}

extension YAMLNode {
    /// The tree as YAML: block style for sections, flow style for lists.
    package static func text(_ node: ConfigNode) -> String {
        guard let entries = node.entries else { return flow(node) + "\n" }
        var out = ""
        write(entries, indent: 0, into: &out)
        return out
    }

    private static func write(_ entries: [ConfigNode.Entry], indent: Int, into out: inout String) {
        for entry in entries {
            out += String(repeating: "    ", count: indent) + word(entry.key) + ":"
            if let children = entry.node.entries, !children.isEmpty {
                out += "\n"
                write(children, indent: indent + 1, into: &out)
            } else {
                out += " " + flow(entry.node) + "\n"
            }
        }
    }

    static func flow(_ node: ConfigNode) -> String {
        switch node.value {
        case .null: return "null"
        case .bool(let value): return value ? "true" : "false"
        case .integer(let value): return String(value)
        case .number(let value): return value.description
        case .string(let value): return word(value)
        case .sequence(let nodes): return "[" + nodes.map(flow).joined(separator: ", ") + "]"
        case .mapping(let entries):
            return "{" + entries.map { "\(word($0.key)): \(flow($0.node))" }.joined(separator: ", ") + "}"
        }
    }

    /// A plain scalar if it parses back to the same string, otherwise JSON quotes, which are valid in YAML.
    private static func word(_ text: String) -> String {
        let isSafe = text.unicodeScalars.allSatisfy {
            $0.isASCII
                && ($0.properties.isAlphabetic || ("0"..."9").contains($0)
                    || "_-./+".unicodeScalars.contains($0))
        }
        let startsSafely =
            text.first.map { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "/" || $0 == "." } ?? false
        if isSafe, startsSafely, plain(text) == .string(text) { return text }
        return JSONValue.quoted(text)
    }
}

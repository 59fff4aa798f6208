import CYaml
import FileFormats

/// Checks YAML text against limits before a tree is made of it, because a few lines of aliases can stand for billions of
/// values.
///
/// The text is parsed event by event with libyaml, as Yams does. Yams itself offers only finished trees, and makes them
/// by comparing the keys of each section, which takes exponential time if keys are made of aliases.
enum YAMLLimits {
    static let bytes = 1 << 20
    /// Values and keys, those that aliases repeat included.
    static let nodes = 100_000
    static let depth = 32

    /// - Throws: `ConfigError` where a limit is exceeded or a key is no scalar. Syntax errors are left to the reader.
    static func check(_ text: String, source: String) throws(ConfigError) {
        let count = text.utf8.count
        guard count <= bytes else {
            throw ConfigError(
                .syntax, "is \(count) bytes, expected at most \(bytes)", location: .init(source: source))
        }
        var text = text
        let problem = text.withUTF8 { utf8 in
            var scan = EventScan(utf8)
            defer { scan.close() }
            return scan.run()
        }
        if let problem {
            throw ConfigError(
                .syntax, problem.text, location: .init(source: source, line: problem.line))
        }
    }
}

/// Follows the events of a document and counts the values that they stand for.
private struct EventScan {
    struct Problem {
        let text: String
        let line: Int
    }

    /// An open list or section.
    private struct Collection {
        let anchor: String?
        let isMapping: Bool
        /// Nodes before it.
        let start: Int
        /// Children so far; in a section keys and values alternate.
        var children = 0

        var expectsKey: Bool { isMapping && children % 2 == 0 }
    }

    // libyaml's parser is initialised and freed at one address.
    private let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
    private var open: [Collection] = []
    /// Nodes of a complete anchored value, and whether it is a scalar.
    private var anchored: [String: (nodes: Int, isScalar: Bool)] = [:]
    private var nodes = 0

    init(_ utf8: UnsafeBufferPointer<UInt8>) {
        yaml_parser_initialize(parser)
        yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
        yaml_parser_set_input_string(parser, utf8.baseAddress, utf8.count)
    }

    func close() {
        yaml_parser_delete(parser)
        parser.deallocate()
    }

    /// - Returns: the first problem; nil at the end of the text or at a syntax error.
    mutating func run() -> Problem? {
        while true {
            var event = yaml_event_t()
            guard yaml_parser_parse(parser, &event) == 1 else { return nil }
            defer { yaml_event_delete(&event) }
            if event.type == YAML_STREAM_END_EVENT { return nil }
            if let text = take(event) { return Problem(text: text, line: Int(event.start_mark.line) + 1) }
        }
    }

    /// - Returns: what is wrong.
    private mutating func take(_ event: yaml_event_t) -> String? {
        switch event.type {
        case YAML_SCALAR_EVENT:
            if let anchor = Self.text(event.data.scalar.anchor) { anchored[anchor] = (1, true) }
            return add(1, isScalar: true)
        case YAML_ALIAS_EVENT:
            // Of an unknown anchor, and of one whose value is not complete, the reader complains.
            let value = Self.text(event.data.alias.anchor).flatMap { anchored[$0] } ?? (1, true)
            return add(value.nodes, isScalar: value.isScalar)
        case YAML_SEQUENCE_START_EVENT:
            return begin(Self.text(event.data.sequence_start.anchor), isMapping: false)
        case YAML_MAPPING_START_EVENT:
            return begin(Self.text(event.data.mapping_start.anchor), isMapping: true)
        case YAML_SEQUENCE_END_EVENT, YAML_MAPPING_END_EVENT:
            let closed = open.removeLast()
            if let anchor = closed.anchor { anchored[anchor] = (nodes - closed.start, false) }
            return nil
        default:
            return nil
        }
    }

    private mutating func begin(_ anchor: String?, isMapping: Bool) -> String? {
        guard open.count < YAMLLimits.depth else { return "nested deeper than \(YAMLLimits.depth) levels" }
        let start = nodes
        let problem = add(1, isScalar: false)
        open.append(Collection(anchor: anchor, isMapping: isMapping, start: start))
        return problem
    }

    private mutating func add(_ count: Int, isScalar: Bool) -> String? {
        if let parent = open.indices.last {
            if open[parent].expectsKey, !isScalar { return "a key must be a word" }
            open[parent].children += 1
        }
        // Every summand is at most the limit, so the sum does not overflow.
        nodes += count
        guard nodes <= YAMLLimits.nodes else {
            return "stands for more than \(YAMLLimits.nodes) values, those repeated by aliases included; "
                + "expected a configuration of fewer"
        }
        return nil
    }

    private static func text(_ characters: UnsafeMutablePointer<yaml_char_t>?) -> String? {
        characters.map { String(decodingCString: $0, as: UTF8.self) }
    }
}

import CYaml
import FileFormats

/// Checks YAML text against limits before a tree is built, because a few lines with aliases can expand to
/// billions of values.
///
/// The text is parsed as events with libyaml, the parser behind Yams. Yams itself only provides finished
/// trees, and builds them by comparing the keys of each section, which takes exponential time if the keys
/// consist of aliases.
enum YAMLLimits {
    static let bytes = 1 << 20
    /// Limit on keys and values, including those repeated by aliases.
    static let nodes = 100_000
    static let depth = 32

    /// - Throws: `ConfigError` if a limit is exceeded or a key is not a scalar. Syntax errors are left to the
    ///   parser that builds the tree.
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

/// Scans the events of a document and counts the values after alias expansion.
private struct EventScan {
    struct Problem {
        let text: String
        let line: Int
    }

    /// An open list or section.
    private struct Collection {
        let anchor: String?
        let isMapping: Bool
        /// Number of nodes before it.
        let start: Int
        /// Number of children so far; in a section, keys and values alternate.
        var children = 0

        var expectsKey: Bool { isMapping && children % 2 == 0 }
    }

    // libyaml's parser must be initialized and freed at the same address.
    private let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
    private var open: [Collection] = []
    /// Number of nodes of each complete anchored value, and whether it is a scalar.
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

    /// - Returns: a description of the problem, or nil.
    private mutating func take(_ event: yaml_event_t) -> String? {
        switch event.type {
        case YAML_SCALAR_EVENT:
            if let anchor = Self.text(event.data.scalar.anchor) { anchored[anchor] = (1, true) }
            return add(1, isScalar: true)
        case YAML_ALIAS_EVENT:
            // An alias to an unknown or incomplete anchor is reported later, when the tree is built.
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
        // Each summand is at most the limit, so the sum cannot overflow.
        nodes += count
        guard nodes <= YAMLLimits.nodes else {
            return "expands to more than \(YAMLLimits.nodes) values, including those repeated by aliases; "
                + "expected a smaller configuration"
        }
        return nil
    }

    private static func text(_ characters: UnsafeMutablePointer<yaml_char_t>?) -> String? {
        characters.map { String(decodingCString: $0, as: UTF8.self) }
    }
}

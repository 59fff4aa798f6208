/// A JSON document. It keeps the order of object keys and distinguishes integers from other numbers.
///
/// All JSON of the project uses this type: model configurations, checkpoint manifests, safetensors headers
/// and metrics lines. Foundation's reader hides duplicate keys and its writer reorders keys.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    /// A number without fraction or exponent that fits into 64 bits.
    case integer(Int)
    /// Any other number; always finite when it comes from a file.
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// A number that is written with the shortest digits that round-trip to the same `Float`.
    package static func float(_ value: Float) -> JSONValue {
        guard value.isFinite else { return .number(Double(value)) }
        return .number(Double(value.description) ?? Double(value))
    }

    /// Whether this is `null`.
    package var isNull: Bool { self == .null }

    /// The Boolean, or nil if this is another kind.
    package var boolValue: Bool? {
        if case .bool(let value) = self { return value }
        return nil
    }

    /// The integer, or nil if this is another kind.
    package var intValue: Int? {
        if case .integer(let value) = self { return value }
        return nil
    }

    /// The number, integer or not, or nil if this is another kind.
    package var doubleValue: Double? {
        switch self {
        case .integer(let value): return Double(value)
        case .number(let value): return value
        default: return nil
        }
    }

    /// The string, or nil if this is another kind.
    package var stringValue: String? {
        if case .string(let value) = self { return value }
        return nil
    }

    /// The elements, or nil if this is another kind.
    package var arrayValue: [JSONValue]? {
        if case .array(let value) = self { return value }
        return nil
    }

    /// The members, or nil if this is another kind.
    package var objectValue: JSONObject? {
        if case .object(let value) = self { return value }
        return nil
    }

    /// The member of an object; nil if the key is absent or this is not an object.
    package subscript(key: String) -> JSONValue? { objectValue?[key] }

    /// The name of this kind of value in error messages.
    package var kind: String {
        switch self {
        case .null: return "null"
        case .bool: return "true or false"
        case .integer: return "a whole number"
        case .number: return "a number"
        case .string: return "a string"
        case .array: return "a list"
        case .object: return "an object"
        }
    }
}

/// The members of a JSON object, in file order, with unique keys.
package struct JSONObject: Sendable, Equatable {
    /// Keys in order.
    package private(set) var keys: [String] = []
    private var values: [String: JSONValue] = [:]

    /// An empty object.
    package init() {}

    /// Number of members.
    package var count: Int { keys.count }

    /// Whether there are no members.
    package var isEmpty: Bool { keys.isEmpty }

    /// The members in order.
    package var members: [(key: String, value: JSONValue)] { keys.map { ($0, values[$0] ?? .null) } }

    /// The value of a key. Setting a new key appends it; setting nil removes it.
    package subscript(key: String) -> JSONValue? {
        get { values[key] }
        set {
            if let newValue {
                if values.updateValue(newValue, forKey: key) == nil { keys.append(key) }
            } else if values.removeValue(forKey: key) != nil {
                keys.removeAll { $0 == key }
            }
        }
    }

    /// Appends a member. Returns false and changes nothing if the key exists.
    package mutating func append(_ key: String, _ value: JSONValue) -> Bool {
        guard values[key] == nil else { return false }
        values[key] = value
        keys.append(key)
        return true
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    /// For equal keys, the last value applies.
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        for (key, value) in elements { self[key] = value }
    }
}

extension JSONValue: ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral, ExpressibleByStringLiteral,
    ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByNilLiteral
{
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        var object = JSONObject()
        for (key, value) in elements { object[key] = value }
        self = .object(object)
    }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int) { self = .integer(value) }
    package init(floatLiteral value: Double) { self = .number(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(nilLiteral: ()) { self = .null }
}

/// Why a JSON text could not be read or written; the description is one line.
package enum JSONError: Error, Equatable, CustomStringConvertible {
    /// The text is not JSON: the reason, with line and column (both from 1).
    case syntax(String, line: Int, column: Int)
    /// A key occurs twice in one object.
    case duplicateKey(String, line: Int, column: Int)
    /// Arrays and objects are nested more deeply than the limit.
    case tooDeep(limit: Int, line: Int, column: Int)
    /// A value to write is NaN or infinite; JSON cannot represent it.
    case nonFinite(path: String)

    package var description: String { text.oneLine() }

    private var text: String {
        switch self {
        case .syntax(let what, let line, let column):
            return "not valid JSON at line \(line), column \(column): \(what)"
        case .duplicateKey(let key, let line, let column):
            return "JSON key '\(key)' appears twice in one object, again at line \(line), column \(column)"
        case .tooDeep(let limit, let line, let column):
            return "JSON is nested deeper than \(limit) levels at line \(line), column \(column)"
        case .nonFinite(let path):
            return "cannot write \(path.isEmpty ? "the value" : path) as JSON: it is NaN or infinite"
        }
    }
}

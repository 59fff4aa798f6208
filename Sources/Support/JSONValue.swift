/// A JSON document, with the order of object keys kept and whole numbers told apart from others.
///
/// This is the one JSON of the project: model configurations, checkpoint manifests, safetensors headers and
/// metrics lines all go through it, because Foundation's reader hides duplicate keys and its writer reorders.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    /// A number written without fraction or exponent that fits 64 bits.
    case integer(Int)
    /// Any other number; always finite when it comes from a file.
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// A number that prints with the shortest digits that give back the same `Float`.
    package static func float(_ value: Float) -> JSONValue {
        guard value.isFinite else { return .number(Double(value)) }
        return .number(Double(value.description) ?? Double(value))
    }

    /// Whether this is `null`.
    package var isNull: Bool { self == .null }

    /// The truth value, or nil if this is another kind.
    package var boolValue: Bool? {
        if case .bool(let value) = self { return value }
        return nil
    }

    /// The whole number, or nil if this is another kind.
    package var intValue: Int? {
        if case .integer(let value) = self { return value }
        return nil
    }

    /// The number, whole or not, or nil if this is another kind.
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

    /// The member of an object; nil if there is none or this is no object.
    package subscript(key: String) -> JSONValue? { objectValue?[key] }

    /// What an error message calls this kind of value.
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

/// The members of a JSON object, in file order, with each key once.
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

    /// Appends a member; returns false, and changes nothing, if the key is there already.
    package mutating func append(_ key: String, _ value: JSONValue) -> Bool {
        guard values[key] == nil else { return false }
        values[key] = value
        keys.append(key)
        return true
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    /// Of two equal keys the later wins.
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

/// Why a JSON text could not be read or written, in one line.
package enum JSONError: Error, Equatable, CustomStringConvertible {
    /// The text is not JSON: what is wrong, at which line and column (both from 1).
    case syntax(String, line: Int, column: Int)
    /// The same key stands twice in one object.
    case duplicateKey(String, line: Int, column: Int)
    /// Arrays and objects are nested beyond the limit.
    case tooDeep(limit: Int, line: Int, column: Int)
    /// NaN or an infinity was to be written; JSON has no such number.
    case nonFinite(path: String)

    package var description: String { text.oneLine() }

    private var text: String {
        switch self {
        case .syntax(let what, let line, let column):
            return "not valid JSON at line \(line), column \(column): \(what)"
        case .duplicateKey(let key, let line, let column):
            return "JSON key '\(key)' stands twice in one object, again at line \(line), column \(column)"
        case .tooDeep(let limit, let line, let column):
            return "JSON is nested deeper than \(limit) levels at line \(line), column \(column)"
        case .nonFinite(let path):
            return "cannot write \(path.isEmpty ? "the value" : path) as JSON: it is NaN or infinite"
        }
    }
}

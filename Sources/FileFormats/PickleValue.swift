/// A value in a pickle.
package struct PickleValue: Sendable {
    let pickle: Pickle
    let reference: PickleNode.Reference

    private var node: PickleNode { pickle.nodes[Int(reference)] }
    private func value(_ reference: PickleNode.Reference) -> PickleValue {
        PickleValue(pickle: pickle, reference: reference)
    }

    /// Whether this is the same value, not just an equal one, as another value of the same pickle.
    package func isSame(as other: PickleValue) -> Bool {
        pickle === other.pickle && reference == other.reference
    }

    package var isNone: Bool {
        if case .none = node.content { return true }
        return false
    }

    /// The Boolean, or nil if this is another kind.
    package var boolValue: Bool? {
        if case .bool(let value) = node.content { return value }
        return nil
    }

    /// The integer, or nil if this is another kind or needs more than 64 bits.
    package var intValue: Int? {
        if case .int(let value) = node.content { return value }
        return nil
    }

    /// The number, integer or not, or nil if this is another kind or an integer of more than 64 bits.
    package var doubleValue: Double? {
        switch node.content {
        case .int(let value): return Double(value)
        case .float(let value): return value
        default: return nil
        }
    }

    /// The string, or nil if this is another kind, longer than 64 KiB, not valid UTF-8, or impractical to
    /// compare (see `isStreamSafe`). Bytes also have one, because they are the strings of Python 2.
    package var stringValue: String? {
        switch node.content {
        case .text(let range), .bytes(let range):
            guard range.count <= 1 << 16,
                let text = withStored(range, { String(validating: $0, as: UTF8.self) }), text.isStreamSafe
            else { return nil }
            return text
        default: return nil
        }
    }

    /// Calls `body` with the bytes of a bytes object, a bytearray or a string of Python 2; nil for another
    /// kind of value. They are valid only inside `body`.
    package func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result? {
        guard case .bytes(let range) = node.content else { return nil }
        return try withStored(range, body)
    }

    /// The elements of a list, tuple or set.
    package var elements: [PickleValue]? {
        switch node.content {
        case .tuple, .list, .set: return node.elements.map(value)
        case .object(_, let arguments, _):
            // Up to protocol 3, a set is a call with a list.
            guard let name = object?.global, PickleGlobal.plain.contains(name), name.name.hasSuffix("set"),
                let list = pickle.nodes[Int(arguments)].elements.first
            else { return nil }
            return pickle.nodes[Int(list)].elements.map(value)
        default: return nil
        }
    }

    /// The entries of a dictionary, or those set in an object such as an OrderedDict, in the file's order. A
    /// key may occur again; the last one applies.
    package var entries: [(key: PickleValue, value: PickleValue)]? {
        switch node.content {
        case .dictionary: break
        case .object where node.hasEntries || node.elements.isEmpty: break
        default: return nil
        }
        let elements = node.elements
        return stride(from: 0, to: elements.count - 1, by: 2).map {
            (value(elements[$0]), value(elements[$0 + 1]))
        }
    }

    /// The entry of a dictionary with this key, a string.
    ///
    /// - Complexity: linear in the number of entries.
    package subscript(key: String) -> PickleValue? { entries?.last { $0.key.stringValue == key }?.value }

    /// The class or function that this value is.
    package var global: PickleGlobal? {
        guard case .global(let index) = node.content else { return nil }
        return pickle.globals[Int(index)]
    }

    /// The class or function that returned this object, its positional arguments, and the state that was set
    /// in it.
    package var object: (global: PickleGlobal, arguments: [PickleValue], state: PickleValue?)? {
        guard case .object(let callable, let arguments, _) = node.content,
            let global = value(callable).global
        else { return nil }
        return (
            global, value(arguments).elements ?? [], node.state < 0 ? nil : value(node.state)
        )
    }

    /// The identifier of something outside the pickle.
    package var persistentID: PickleValue? {
        guard case .persistent(let identifier) = node.content else { return nil }
        return value(identifier)
    }

    /// The name of this kind of value in error messages.
    package var kind: String {
        switch node.content {
        case .none: return "None"
        case .bool: return "a Boolean"
        case .int, .longInteger: return "a whole number"
        case .float: return "a number"
        case .text: return "a string"
        case .bytes: return "bytes"
        case .tuple: return "a tuple"
        case .list: return "a list"
        case .set: return "a set"
        case .dictionary: return "a dictionary"
        case .global: return "the name \(global.map { "\($0)" } ?? "")"
        case .object: return "an object of \(object.map { "\($0.global)" } ?? "an unknown class")"
        case .persistent: return "a reference to an external object"
        }
    }

    /// An error about this value.
    package func error(_ detail: String) -> PickleError { PickleError(pickle.path, detail) }

    private func withStored<Result>(
        _ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) rethrows -> Result {
        let start = pickle.bytes.count
        let (bytes, range) =
            range.lowerBound < start
            ? (pickle.bytes, range)
            : (pickle.unescaped, range.lowerBound - start..<range.upperBound - start)
        return try bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[range])) }
    }
}

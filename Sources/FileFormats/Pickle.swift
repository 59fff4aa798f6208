import Support

/// A class or function that a pickle refers to by name. Nothing is imported or called: the name is a value.
package struct PickleGlobal: Hashable, Sendable, CustomStringConvertible {
    package let module: String
    package let name: String

    package init(_ module: String, _ name: String) { (self.module, self.name) = (module, name) }

    package var description: String { "\(module).\(name)" }

    /// How Python 3 writes bytes up to protocol 2: as a call with a string whose characters are the bytes.
    static let encode = PickleGlobal("_codecs", "encode")

    /// The names with which Python writes plain values, which every pickle may contain.
    static let plain: Set<PickleGlobal> = {
        var names: Set<PickleGlobal> = [encode]
        for module in ["builtins", "__builtin__"] {
            for name in ["bytes", "bytearray", "set", "frozenset"] {
                names.insert(PickleGlobal(module, name))
            }
        }
        return names
    }()
}

/// Why a pickle cannot be read; the message is one line.
package struct PickleError: ReportableError, Equatable, Sendable {
    /// The file, and the member of an archive if the pickle is in one.
    package var path: String
    package var detail: String
    /// The class or function that is not permitted, if this is the reason.
    package var refused: PickleGlobal?

    package init(_ path: String, _ detail: String, refused: PickleGlobal? = nil) {
        (self.path, self.detail, self.refused) = (path, detail, refused)
    }

    package var message: String { "\(path): \(detail)".oneLine() }
    package var exitStatus: Int32 { ExitStatus.refused }
}

/// Limits on what a pickle may contain. The numbers of values and opcodes limit the memory to about 100 bytes
/// per value and 8 bytes per opcode, beside the pickle's own bytes.
package struct PickleLimits: Sendable {
    package var values: Int
    package var opcodes: Int

    package init(values: Int = 2_000_000, opcodes: Int = 16_000_000) {
        (self.values, self.opcodes) = (values, opcodes)
    }
}

/// The contents of a Python pickle, of protocol 0 to 5.
///
/// Python's own reader calls any function that a file names. This one calls nothing: it constructs None,
/// booleans, numbers, strings, bytes and containers, and represents each object as the name of its class or
/// function with the arguments and the state. A pickle that names anything outside the caller's list is
/// refused.
///
/// All values are in one flat table and refer to one another by position. Reading and releasing them never
/// recurses, however deeply a hostile file nests them, and a container may contain itself.
///
/// - Source: Lib/pickletools.py of CPython, which documents every opcode.
package final class Pickle: Sendable {
    /// The file, for messages.
    package let path: String
    /// The number of bytes up to the end of the pickle. A file may have more after it.
    package let end: Int

    let bytes: [UInt8]
    /// Text that is not in the file as it is, such as text with escapes. Positions from `bytes.count` refer
    /// to it.
    let unescaped: [UInt8]
    let nodes: [PickleNode]
    let globals: [PickleGlobal]
    private let rootNode: PickleNode.Reference

    /// Reads a pickle.
    ///
    /// - Parameters:
    ///   - path: the file, for messages.
    ///   - permitted: the classes and functions that it may name, besides those of bytes and sets.
    package init(
        _ bytes: [UInt8], path: String, permitted: Set<PickleGlobal>, limits: PickleLimits = PickleLimits()
    ) throws(PickleError) {
        var reader = PickleReader(bytes, path: path, permitted: permitted, limits: limits)
        rootNode = try reader.read()
        (self.path, self.bytes, self.end) = (path, bytes, reader.position)
        (unescaped, nodes, globals) = (reader.unescaped, reader.nodes, reader.globals)
    }

    /// The pickled value.
    package var root: PickleValue { PickleValue(pickle: self, reference: rootNode) }
}

/// One entry in a pickle's table of values.
struct PickleNode {
    /// The position of another value in the table.
    typealias Reference = Int32

    enum Content {
        case none
        case bool(Bool)
        case int(Int)
        /// An integer of more than 64 bits. No reader needs its value.
        case longInteger
        case float(Double)
        /// UTF-8, at a position.
        case text(Range<Int>)
        /// Bytes, or a string of Python 2, at a position.
        case bytes(Range<Int>)
        case tuple, list, set
        /// `elements` alternate between keys and values.
        case dictionary
        /// The position in the list of globals.
        case global(Int32)
        /// An object that a function returned or that a class constructed. `elements` are the items appended
        /// to it, or keys and values set in it.
        case object(callable: Reference, arguments: Reference, keywords: Reference)
        /// Refers to something outside the pickle, in a way that its writer defines.
        case persistent(Reference)
    }

    var content: Content
    var elements: [Reference] = []
    /// The state of an object; -1 if it has none.
    var state: Reference = -1
    /// Whether the elements of an object are keys and values.
    var hasEntries = false
}

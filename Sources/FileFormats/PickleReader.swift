/// The stack machine that a pickle is a program for.
struct PickleReader {
    typealias Reference = PickleNode.Reference

    let bytes: [UInt8]
    let path: String
    private let permitted: Set<PickleGlobal>
    private let limits: PickleLimits

    /// Offset of the next byte to read.
    var position = 0
    var unescaped: [UInt8] = []
    private(set) var nodes: [PickleNode] = []
    private(set) var globals: [PickleGlobal] = []

    private var globalNodes: [PickleGlobal: Reference] = [:]
    private var stack: [Reference] = []
    /// Heights of the stack at which marks are.
    private var marks: [Int] = []
    private var memo: [Int: Reference] = [:]
    /// Strings that have been converted to bytes. Without it, a small file could convert a long one often.
    private var encoded: [Reference: Reference] = [:]

    init(_ bytes: [UInt8], path: String, permitted: Set<PickleGlobal>, limits: PickleLimits) {
        (self.bytes, self.path, self.limits) = (bytes, path, limits)
        self.permitted = permitted.union(PickleGlobal.plain)
    }

    /// Executes the opcodes up to the end of the pickle.
    ///
    /// - Returns: the pickled value.
    mutating func read() throws(PickleError) -> Reference {
        var opcodes = 0
        while true {
            opcodes += 1
            if opcodes > limits.opcodes { throw error("has more than \(limits.opcodes) opcodes") }
            let opcode = try byte()
            if opcode == UInt8(ascii: ".") {
                let root = try pop()
                guard stack.isEmpty, marks.isEmpty else { throw error("ends with values left over") }
                return root
            }
            if try value(opcode) { continue }
            if try container(opcode) { continue }
            if try object(opcode) { continue }
            try bookkeeping(opcode)
        }
    }

    /// Executes an opcode that adds an element to a container, or makes one.
    ///
    /// - Returns: whether it is one.
    private mutating func container(_ opcode: UInt8) throws(PickleError) -> Bool {
        switch opcode {
        case UInt8(ascii: ")"): try push(.tuple)
        case UInt8(ascii: "]"): try push(.list)
        case UInt8(ascii: "}"): try push(.dictionary)
        case 0x8F: try push(.set)
        case UInt8(ascii: "t"): try push(.tuple, try popToMark())
        case UInt8(ascii: "l"): try push(.list, try popToMark())
        case 0x91: try push(.set, try popToMark())
        case UInt8(ascii: "d"):
            let elements = try popToMark()
            try push(.dictionary)
            try setItems(elements)
        case 0x85...0x87:
            var elements: [Reference] = []
            for _ in 0x85...opcode { elements.append(try pop()) }
            elements.reverse()
            try push(.tuple, elements)
        case UInt8(ascii: "a"): try append([try pop()])
        case UInt8(ascii: "e"), 0x90: try append(try popToMark())
        case UInt8(ascii: "s"):
            let value = try pop()
            try setItems([try pop(), value])
        case UInt8(ascii: "u"): try setItems(try popToMark())
        default: return false
        }
        return true
    }

    /// Executes an opcode that names a class or function, or makes an object of one.
    ///
    /// - Returns: whether it is one.
    private mutating func object(_ opcode: UInt8) throws(PickleError) -> Bool {
        switch opcode {
        case UInt8(ascii: "c"): try pushGlobal(try lineText(), try lineText())
        case 0x93:
            let name = try pop()
            let module = try pop()
            guard let name = text(name), let module = text(module) else {
                throw error("names a class or function by something other than strings")
            }
            try pushGlobal(module, name)
        case UInt8(ascii: "i"):
            let arguments = try popToMark()
            try pushGlobal(try lineText(), try lineText())
            let callable = try pop()
            try push(.tuple, arguments)
            try pushObject(callable, arguments: try pop())
        case UInt8(ascii: "o"):
            let elements = try popToMark()
            guard let callable = elements.first else { throw error("makes an object of no class") }
            try push(.tuple, Array(elements.dropFirst()))
            try pushObject(callable, arguments: try pop())
        case UInt8(ascii: "R"), 0x81:
            let arguments = try pop()
            try pushObject(try pop(), arguments: arguments)
        case 0x92:
            let keywords = try pop()
            let arguments = try pop()
            try pushObject(try pop(), arguments: arguments, keywords: keywords)
        case UInt8(ascii: "b"):
            let state = try pop()
            let target = Int(try top())
            guard case .object = nodes[target].content else { throw error("sets the state of no object") }
            nodes[target].state = state
        case UInt8(ascii: "P"): try push(.persistent(try pushed(.text(try line()))))
        case UInt8(ascii: "Q"): try push(.persistent(try pop()))
        case 0x82...0x84: throw error("uses a registered extension code, which is not supported")
        case 0x97, 0x98: throw error("has buffers outside the file, which is not supported")
        default: return false
        }
        return true
    }

    /// Executes an opcode for the memo, the stack or the framing.
    private mutating func bookkeeping(_ opcode: UInt8) throws(PickleError) {
        switch opcode {
        case UInt8(ascii: "("): marks.append(stack.count)
        case UInt8(ascii: "0"):
            if stack.count == marks.last { marks.removeLast() } else { _ = try pop() }
        case UInt8(ascii: "1"): _ = try popToMark()
        case UInt8(ascii: "2"): stack.append(try top())
        case UInt8(ascii: "g"): try recall(try decimal())
        case UInt8(ascii: "h"): try recall(try unsigned(1))
        case UInt8(ascii: "j"): try recall(try unsigned(4))
        case UInt8(ascii: "p"): try remember(try decimal())
        case UInt8(ascii: "q"): try remember(try unsigned(1))
        case UInt8(ascii: "r"): try remember(try unsigned(4))
        case 0x94: try remember(memo.count)
        case 0x80:
            let version = try byte()
            if version > 5 { throw error("has protocol \(version), expected 5 at most") }
        case 0x95:
            let count = try unsigned(8)
            if count > bytes.count - position { throw error("is truncated: a frame of \(count) bytes") }
        default:
            position -= 1
            throw error("byte 0x\(String(opcode, radix: 16)) is not an opcode; not a pickle, or damaged")
        }
    }
}

// MARK: The stack and the memo

extension PickleReader {
    /// Appends an entry to the table of values.
    mutating func pushed(
        _ content: PickleNode.Content, _ elements: [Reference] = []
    ) throws(PickleError) -> Reference {
        guard nodes.count < limits.values else { throw error("has more than \(limits.values) values") }
        nodes.append(PickleNode(content: content, elements: elements))
        return Reference(nodes.count - 1)
    }

    mutating func push(_ content: PickleNode.Content, _ elements: [Reference] = []) throws(PickleError) {
        stack.append(try pushed(content, elements))
    }

    private func top() throws(PickleError) -> Reference {
        guard let value = stack.last, stack.count > marks.last ?? 0 else {
            throw error("takes a value from an empty stack")
        }
        return value
    }

    private mutating func pop() throws(PickleError) -> Reference {
        let value = try top()
        stack.removeLast()
        return value
    }

    private mutating func popToMark() throws(PickleError) -> [Reference] {
        guard let mark = marks.popLast() else { throw error("has no mark on the stack") }
        defer { stack.removeSubrange(mark...) }
        return Array(stack[mark...])
    }

    private mutating func remember(_ key: Int) throws(PickleError) {
        guard memo.count < limits.values else { throw error("remembers more than \(limits.values) values") }
        memo[key] = try top()
    }

    private mutating func recall(_ key: Int) throws(PickleError) {
        guard let value = memo[key] else { throw error("recalls value \(key), which it has not stored") }
        stack.append(value)
    }

    /// Appends to the list, set or object at the top of the stack.
    private mutating func append(_ elements: [Reference]) throws(PickleError) {
        let target = Int(try top())
        switch nodes[target].content {
        case .list, .set: break
        case .object where !nodes[target].hasEntries: break
        default: throw error("appends to something other than a list")
        }
        nodes[target].elements += elements
    }

    /// Sets entries in the dictionary or object at the top of the stack.
    private mutating func setItems(_ elements: [Reference]) throws(PickleError) {
        guard elements.count.isMultiple(of: 2) else { throw error("has a key without a value") }
        let target = Int(try top())
        switch nodes[target].content {
        case .dictionary: break
        case .object where nodes[target].hasEntries || nodes[target].elements.isEmpty:
            nodes[target].hasEntries = true
        default: throw error("sets a key in something other than a dictionary")
        }
        nodes[target].elements += elements
    }

    private mutating func pushGlobal(_ module: String, _ name: String) throws(PickleError) {
        let global = PickleGlobal(module, name)
        guard permitted.contains(global) else {
            throw PickleError(
                path,
                "requests '\(global)', which is not permitted in this kind of file; only numbers, strings,"
                    + " containers and arrays are read, and nothing is executed", refused: global)
        }
        if let known = globalNodes[global] { return stack.append(known) }
        try push(.global(Int32(globals.count)))
        globals.append(global)
        globalNodes[global] = stack.last
    }

    private mutating func pushObject(
        _ callable: Reference, arguments: Reference, keywords: Reference = -1
    ) throws(PickleError) {
        guard case .global = nodes[Int(callable)].content else {
            throw error("makes an object of something other than a class or function")
        }
        guard case .tuple = nodes[Int(arguments)].content else {
            throw error("calls a function with something other than a tuple of arguments")
        }
        if let bytes = try encodedBytes(callable, nodes[Int(arguments)].elements) {
            return stack.append(bytes)
        }
        try push(.object(callable: callable, arguments: arguments, keywords: keywords))
    }

    /// The bytes that a call constructs; nil for another call.
    private mutating func encodedBytes(
        _ callable: Reference, _ arguments: [Reference]
    ) throws(PickleError) -> Reference? {
        guard let text = arguments.first, callable == globalNodes[.encode] else { return nil }
        if let known = encoded[text] { return known }
        guard let range = encodeLatin1(text) else {
            throw error("has bytes as a string with characters above U+00FF")
        }
        let bytes = try pushed(.bytes(range))
        encoded[text] = bytes
        return bytes
    }

    /// An error at the current position.
    func error(_ detail: String) -> PickleError { PickleError(path, "\(detail) (at byte \(position))") }
}

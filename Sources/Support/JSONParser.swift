extension JSONValue {
    /// Parses one JSON document (RFC 8259) strictly: UTF-8 only, no duplicate keys, no NaN, no trailing data.
    ///
    /// - Parameters:
    ///   - text: the document.
    ///   - maximumDepth: the limit on nested arrays and objects.
    /// - Throws: `JSONError` with line and column.
    package init(parsing text: String, maximumDepth: Int = 64) throws(JSONError) {
        try self.init(parsing: Array(text.utf8)[...], maximumDepth: maximumDepth)
    }

    /// Parses one JSON document from bytes; see `init(parsing:maximumDepth:)`.
    ///
    /// - Parameter allowsNonFinite: accepts NaN, Infinity and -Infinity, which Python writes.
    package init(
        parsing bytes: ArraySlice<UInt8>, maximumDepth: Int = 64, allowsNonFinite: Bool = false
    ) throws(JSONError) {
        var parser = JSONParser(
            bytes: bytes, maximumDepth: maximumDepth, allowsNonFinite: allowsNonFinite)
        self = try parser.document()
    }
}

/// A recursive-descent parser over bytes. Its depth is bounded, so hostile input cannot exhaust the stack.
private struct JSONParser {
    let bytes: ArraySlice<UInt8>
    let maximumDepth: Int
    let allowsNonFinite: Bool
    var position: Int
    var depth = 0

    init(bytes: ArraySlice<UInt8>, maximumDepth: Int, allowsNonFinite: Bool) {
        self.bytes = bytes
        self.maximumDepth = maximumDepth
        self.allowsNonFinite = allowsNonFinite
        position = bytes.startIndex
    }

    var current: UInt8? { position < bytes.endIndex ? bytes[position] : nil }

    mutating func document() throws(JSONError) -> JSONValue {
        skipSpace()
        let value = try value()
        skipSpace()
        if position < bytes.endIndex { throw syntax("unexpected \(found()) after the end of the document") }
        return value
    }

    mutating func value() throws(JSONError) -> JSONValue {
        switch current {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "N") where allowsNonFinite: return try word("NaN", .number(.nan))
        case UInt8(ascii: "I") where allowsNonFinite: return try word("Infinity", .number(.infinity))
        case .some(let byte) where byte == UInt8(ascii: "-") || isDigit(byte): return try number()
        default: throw syntax("expected a value, found \(found())")
        }
    }

    mutating func object() throws(JSONError) -> JSONValue {
        try enter()
        var object = JSONObject()
        skipSpace()
        if take("}") {
            depth -= 1
            return .object(object)
        }
        while true {
            skipSpace()
            guard current == UInt8(ascii: "\"") else {
                throw syntax("expected a key in quotes, found \(found())")
            }
            let start = position
            let key = try string()
            skipSpace()
            guard take(":") else { throw syntax("expected ':' after key '\(key)', found \(found())") }
            skipSpace()
            let member = try value()
            guard object.append(key, member) else {
                let place = place(of: start)
                throw .duplicateKey(key, line: place.line, column: place.column)
            }
            skipSpace()
            if take("}") { break }
            guard take(",") else { throw syntax("expected ',' or '}', found \(found())") }
        }
        depth -= 1
        return .object(object)
    }

    mutating func array() throws(JSONError) -> JSONValue {
        try enter()
        var elements: [JSONValue] = []
        skipSpace()
        if take("]") {
            depth -= 1
            return .array(elements)
        }
        while true {
            skipSpace()
            elements.append(try value())
            skipSpace()
            if take("]") { break }
            guard take(",") else { throw syntax("expected ',' or ']', found \(found())") }
        }
        depth -= 1
        return .array(elements)
    }

    mutating func string() throws(JSONError) -> String {
        let start = position
        position += 1
        var text: [UInt8] = []
        while let byte = current {
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                guard let string = String(validating: text, as: UTF8.self) else {
                    position = start
                    throw syntax("string is not UTF-8")
                }
                guard string.isStreamSafe else {
                    position = start
                    throw syntax("string has more than 30 combining marks in a row")
                }
                return string
            case UInt8(ascii: "\\"):
                position += 1
                try escape(into: &text)
            case 0..<0x20:
                throw syntax(
                    "control character in a string; write it as \\u00\(byte < 16 ? "0" : "")"
                        + String(byte, radix: 16))
            default:
                text.append(byte)
                position += 1
            }
        }
        throw syntax("unterminated string")
    }

    mutating func escape(into text: inout [UInt8]) throws(JSONError) {
        guard let byte = current else { throw syntax("unterminated string") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexadecimal()
            if (0xD800..<0xDC00).contains(code) {
                guard take("\\"), take("u") else { throw syntax("half of a surrogate pair") }
                let low = try hexadecimal()
                guard (0xDC00..<0xE000).contains(low) else { throw syntax("half of a surrogate pair") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw syntax("half of a surrogate pair") }
            text.append(contentsOf: UTF8.encode(scalar)!)
        default:
            position -= 1
            throw syntax("unknown escape \\\(found())")
        }
    }

    mutating func hexadecimal() throws(JSONError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw syntax("expected four hexadecimal digits after \\u")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }

    mutating func number() throws(JSONError) -> JSONValue {
        let start = position
        var isWhole = true
        let isNegative = take("-")
        if isNegative, allowsNonFinite, current == UInt8(ascii: "I") {
            return try word("Infinity", .number(-.infinity))
        }
        if take("0") {
            if let byte = current, isDigit(byte) { throw syntax("a number may not start with 0") }
        } else {
            try digits()
        }
        if take(".") {
            isWhole = false
            try digits()
        }
        if take("e") || take("E") {
            isWhole = false
            if !take("+") { _ = take("-") }
            try digits()
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        // Only a floating-point number can represent the sign of "-0".
        if isWhole, text != "-0", let integer = Int(text) { return .integer(integer) }
        guard let double = Double(text), double.isFinite else {
            position = start
            throw syntax("number \(text.prefix(40)) is out of range")
        }
        return .number(double)
    }

    mutating func digits() throws(JSONError) {
        guard let byte = current, isDigit(byte) else { throw syntax("expected a digit, found \(found())") }
        while let byte = current, isDigit(byte) { position += 1 }
    }

    mutating func word(_ text: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        let length = text.utf8CodeUnitCount
        let matches = text.withUTF8Buffer { bytes[position...].prefix(length).elementsEqual($0) }
        guard matches else { throw syntax("expected a value, found \(found())") }
        position += length
        return value
    }

    mutating func enter() throws(JSONError) {
        depth += 1
        if depth > maximumDepth {
            let place = place(of: position)
            throw .tooDeep(limit: maximumDepth, line: place.line, column: place.column)
        }
        position += 1
    }

    mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard current == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 {
            position += 1
        }
    }

    func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

    func found() -> String {
        guard let byte = current else { return "the end" }
        if byte > 0x20, byte < 0x7F { return "'\(Character(Unicode.Scalar(byte)))'" }
        return "byte 0x\(String(byte, radix: 16))"
    }

    func syntax(_ what: String) -> JSONError {
        let place = place(of: position)
        return .syntax(what, line: place.line, column: place.column)
    }

    func place(of position: Int) -> (line: Int, column: Int) {
        var line = 1
        var column = 1
        for byte in bytes[bytes.startIndex..<min(position, bytes.endIndex)] {
            if byte == 0x0A {
                line += 1
                column = 1
            } else {
                column += 1
            }
        }
        return (line, column)
    }
}

extension String {
    /// Whether at most 30 combining marks follow one another, as in the Unicode standard's stream-safe text
    /// format (UAX #15, section 13). Comparing and hashing strings sorts such marks in quadratic time: each
    /// lookup of a 100 KB name would take ten seconds.
    fileprivate var isStreamSafe: Bool {
        if utf8.allSatisfy({ $0 < 0x80 }) { return true }
        var run = 0
        for scalar in unicodeScalars {
            switch scalar.properties.generalCategory {
            case .nonspacingMark, .spacingMark, .enclosingMark: run += 1
            default: run = 0
            }
            if run > 30 { return false }
        }
        return true
    }
}

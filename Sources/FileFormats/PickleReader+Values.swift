// The opcodes of None, Booleans, numbers, strings and bytes.

extension PickleReader {
    /// Executes an opcode that pushes a simple value.
    ///
    /// - Returns: whether it is one.
    mutating func value(_ opcode: UInt8) throws(PickleError) -> Bool {
        switch opcode {
        case UInt8(ascii: "N"): try push(.none)
        case 0x88: try push(.bool(true))
        case 0x89: try push(.bool(false))
        case UInt8(ascii: "K"): try push(.int(try unsigned(1)))
        case UInt8(ascii: "M"): try push(.int(try unsigned(2)))
        case UInt8(ascii: "J"): try push(.int(Int(Int32(truncatingIfNeeded: try unsigned(4)))))
        case 0x8A: try pushLong(try take(try unsigned(1)))
        case 0x8B: try pushLong(try take(try unsigned(4)))
        case UInt8(ascii: "G"):
            let bits = bytes[try take(8)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            try push(.float(Double(bitPattern: bits)))
        case UInt8(ascii: "I"), UInt8(ascii: "L"): try pushDecimal()
        case UInt8(ascii: "F"):
            guard let number = Double(try lineText()) else { throw error("has a number that is not one") }
            try push(.float(number))

        case 0x8C: try push(.text(try take(try unsigned(1))))
        case UInt8(ascii: "X"): try push(.text(try take(try unsigned(4))))
        case 0x8D: try push(.text(try take(try unsigned(8))))
        case UInt8(ascii: "C"), UInt8(ascii: "U"): try push(.bytes(try take(try unsigned(1))))
        case UInt8(ascii: "B"), UInt8(ascii: "T"): try push(.bytes(try take(try unsigned(4))))
        case 0x8E, 0x96: try push(.bytes(try take(try unsigned(8))))
        case UInt8(ascii: "S"): try push(.bytes(try unescape(try quoted())))
        case UInt8(ascii: "V"): try push(.text(try unescapeUnicode(try line())))
        default: return false
        }
        return true
    }

    mutating func byte() throws(PickleError) -> UInt8 {
        guard position < bytes.count else { throw error("is truncated") }
        position += 1
        return bytes[position - 1]
    }

    /// The positions of the next `count` bytes.
    private mutating func take(_ count: Int) throws(PickleError) -> Range<Int> {
        guard count <= bytes.count - position else {
            throw error("is truncated: \(count) bytes expected, \(bytes.count - position) left")
        }
        position += count
        return position - count..<position
    }

    /// A little-endian number.
    mutating func unsigned(_ count: Int) throws(PickleError) -> Int {
        let value = bytes[try take(count)].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard let value = Int(exactly: value) else { throw error("has a length of \(value) bytes") }
        return value
    }

    /// Little-endian two's complement of any length.
    private mutating func pushLong(_ range: Range<Int>) throws(PickleError) {
        let isNegative = bytes[range].last ?? 0 >= 0x80
        guard range.count <= 8 else { return try push(.longInteger) }
        let value = bytes[range].reversed().reduce(isNegative ? -1 : 0) { $0 << 8 | Int($1) }
        try push(.int(value))
    }

    /// A number in decimal digits; "00" and "01" are Booleans, and Python 2 writes an L after a long one.
    private mutating func pushDecimal() throws(PickleError) {
        var text = try lineText()
        if text == "00" || text == "01" { return try push(.bool(text == "01")) }
        if text.hasSuffix("L") { text.removeLast() }
        if let value = Int(text) { return try push(.int(value)) }
        guard !text.isEmpty, text.utf8.allSatisfy({ $0 == 0x2D || (0x30...0x39).contains($0) }) else {
            throw error("has a number that is not one")
        }
        try push(.longInteger)
    }

    /// The positions up to the next line end, which is skipped.
    mutating func line() throws(PickleError) -> Range<Int> {
        let start = position
        guard let end = bytes[start...].firstIndex(of: 0x0A) else { throw error("is truncated") }
        position = end + 1
        return start..<end
    }

    /// A line of at most 4096 bytes.
    mutating func lineText() throws(PickleError) -> String {
        let range = try line()
        guard range.count <= 4096, let text = text(of: range) else {
            throw error("has a name or number that is too long or not UTF-8")
        }
        return text
    }

    mutating func decimal() throws(PickleError) -> Int {
        guard let value = Int(try lineText()), value >= 0 else {
            throw error("has a position that is not a number")
        }
        return value
    }

    /// The string of a value of at most 4096 bytes.
    func text(_ reference: Reference) -> String? {
        guard case .text(let range) = nodes[Int(reference)].content, range.count <= 4096 else { return nil }
        return text(of: range)
    }

    private func text(of range: Range<Int>) -> String? {
        let stored =
            range.lowerBound < bytes.count
            ? bytes[range] : unescaped[range.lowerBound - bytes.count..<range.upperBound - bytes.count]
        guard let text = String(validating: stored, as: UTF8.self), text.isStreamSafe else { return nil }
        return text
    }
}

// MARK: Text with escapes, in protocol 0

extension PickleReader {
    /// The positions inside the quotes of a string that Python 2 wrote as source code.
    private mutating func quoted() throws(PickleError) -> Range<Int> {
        let range = try line()
        guard range.count >= 2, let quote = bytes[range].first, quote == 0x22 || quote == 0x27,
            bytes[range].last == quote
        else { throw error("has a string without quotes") }
        return range.lowerBound + 1..<range.upperBound - 1
    }

    private static let escapes: [UInt8: UInt8] = [
        UInt8(ascii: "a"): 7, UInt8(ascii: "b"): 8, UInt8(ascii: "t"): 9, UInt8(ascii: "n"): 10,
        UInt8(ascii: "v"): 11, UInt8(ascii: "f"): 12, UInt8(ascii: "r"): 13, UInt8(ascii: "\\"): 0x5C,
        UInt8(ascii: "'"): 0x27, UInt8(ascii: "\""): 0x22,
    ]

    /// Replaces `\n`, `\x41`, `\101` and the like.
    ///
    /// - Returns: the positions of the result.
    private mutating func unescape(_ range: Range<Int>) throws(PickleError) -> Range<Int> {
        let start = unescaped.count
        var index = range.lowerBound
        while index < range.upperBound {
            let byte = bytes[index]
            index += 1
            guard byte == UInt8(ascii: "\\"), index < range.upperBound else {
                unescaped.append(byte)
                continue
            }
            let letter = bytes[index]
            if let character = Self.escapes[letter] {
                unescaped.append(character)
                index += 1
            } else if letter == UInt8(ascii: "x") {
                let code = try number(at: index + 1, digits: 2, radix: 16, before: range.upperBound)
                unescaped.append(UInt8(code))
                index += 3
            } else if (0x30...0x37).contains(letter) {
                let digits = bytes[index..<min(index + 3, range.upperBound)].prefix {
                    (0x30...0x37).contains($0)
                }
                unescaped.append(digits.reduce(0) { $0 << 3 | ($1 & 7) })
                index += digits.count
            } else {
                unescaped.append(byte)
            }
        }
        return bytes.count + start..<bytes.count + unescaped.count
    }

    /// Converts Latin-1 with `\u0041` and `\U00000041` to UTF-8.
    ///
    /// - Returns: the positions of the result.
    private mutating func unescapeUnicode(_ range: Range<Int>) throws(PickleError) -> Range<Int> {
        let start = unescaped.count
        var index = range.lowerBound
        while index < range.upperBound {
            var code = UInt32(bytes[index])
            index += 1
            if code == UInt32(UInt8(ascii: "\\")), index < range.upperBound,
                let digits = [UInt8(ascii: "u"): 4, UInt8(ascii: "U"): 8][bytes[index]]
            {
                code = try number(at: index + 1, digits: digits, radix: 16, before: range.upperBound)
                index += 1 + digits
            }
            guard let scalar = Unicode.Scalar(code), let encoded = UTF8.encode(scalar) else {
                throw error("has an invalid character code")
            }
            unescaped.append(contentsOf: encoded)
        }
        return bytes.count + start..<bytes.count + unescaped.count
    }

    /// Converts a string whose characters are below U+0100 to bytes with their codes.
    ///
    /// - Returns: the positions of the bytes; nil for another string or value.
    mutating func encodeLatin1(_ reference: Reference) -> Range<Int>? {
        guard case .text(let range) = nodes[Int(reference)].content else { return nil }
        let isInFile = range.lowerBound < bytes.count
        let offset = isInFile ? 0 : bytes.count
        let start = unescaped.count
        var index = range.lowerBound
        while index < range.upperBound {
            let byte = isInFile ? bytes[index] : unescaped[index - offset]
            index += 1
            if byte < 0x80 {
                unescaped.append(byte)
                continue
            }
            // U+0080 to U+00FF: 110000xx 10xxxxxx.
            guard byte == 0xC2 || byte == 0xC3, index < range.upperBound else { return nil }
            let next = isInFile ? bytes[index] : unescaped[index - offset]
            guard next & 0xC0 == 0x80 else { return nil }
            unescaped.append((byte & 0x03) << 6 | next & 0x3F)
            index += 1
        }
        return bytes.count + start..<bytes.count + unescaped.count
    }

    private func number(
        at start: Int, digits: Int, radix: Int, before end: Int
    ) throws(PickleError) -> UInt32 {
        guard start + digits <= end,
            let value = UInt32(String(decoding: bytes[start..<start + digits], as: UTF8.self), radix: radix)
        else { throw error("has an invalid escape in a string") }
        return value
    }
}
